"""Acting when another package's module is imported, without importing it ourselves.

BasicSR takes seconds to import and may be absent, broken or half imported when this package is:
waiting for its modules costs nothing, leaves its import errors its own, and works in any order.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]


def when_imported(module_name: str, action: Action) -> None:
    """Call ``action(module)`` now if the module is imported already, else right after its import.

    Of several that wait for one module each is called, in their order; the same one once.
    """
    module = sys.modules.get(module_name)
    if module is not None and not _is_initialising(module):
        action(module)
        return
    waiting = (_FINDER.actions if module is None else _FINDER.half_imported).setdefault(module_name, [])
    if action not in waiting:
        waiting.append(action)
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def provide_if_missing(module_name: str, make: Callable[[ModuleType], None]) -> None:
    """Let ``import module_name`` succeed where nobody else has that module; ``make`` fills it."""
    finder = _LastResort(module_name, make)
    if not any(isinstance(known, _LastResort) and known.name == module_name for known in sys.meta_path):
        sys.meta_path.append(finder)


def _is_initialising(module: ModuleType) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


class _ActingLoader(importlib.abc.Loader):
    """Loads as ``inner`` does, then acts."""

    def __init__(self, inner: Any, actions: Sequence[Action]) -> None:
        self.inner = inner
        self.actions = actions

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self.inner.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        module.__loader__ = self.inner
        self.inner.exec_module(module)
        for action in self.actions:
            action(module)


class _ActingFinder(importlib.abc.MetaPathFinder):
    """Hands out an acting loader for the modules somebody waits for, and is silent on all others."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}
        self.half_imported: dict[str, list[Action]] = {}
        self._asked: set[tuple[str, int]] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        self._act_on_finished()
        if fullname not in self.actions:
            return None
        question = fullname, threading.get_ident()
        if question in self._asked:  # by one of an earlier import of this package, or by what somebody put around this
            return None
        self._asked.add(question)
        try:
            return self._acting_spec(fullname, path, target)
        finally:
            self._asked.remove(question)

    def _acting_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        for finder in sys.meta_path:
            spec = finder.find_spec(fullname, path, target) if finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader = _ActingLoader(spec.loader, self.actions[fullname])
                return spec
        return None

    def _act_on_finished(self) -> None:
        """Serve modules that were half imported when somebody began to wait: any later import tells."""
        for name in list(self.half_imported):
            module = sys.modules.get(name)
            if module is not None and not _is_initialising(module):
                for action in self.half_imported.pop(name):
                    action(module)


class _LastResort(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands at the end of the line: asked only when no real module was found."""

    def __init__(self, name: str, make: Callable[[ModuleType], None]) -> None:
        self.name = name
        self.make = make

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        self.make(module)


_FINDER = _ActingFinder()
