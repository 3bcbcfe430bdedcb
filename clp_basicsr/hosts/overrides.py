"""A method of a host's models wrapped in every class that has one of its own: models override without calling it."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from clp_basicsr.hosts.construction import before_construction
from clp_basicsr.hosts.once import first_time

Around = Callable[..., Any]
"""Is called with the model, its own method, and what that was called with, of which nothing is known."""
_wrapped: weakref.WeakSet[Any] = weakref.WeakSet()


def wrap_overrides(base_model: Any, name: str, around: Around) -> None:
    """Let ``around`` stand for a method of every class whose models are made from now on; once is enough.

    Where one of them calls its parent's, that is a wrapped one too.

    Args:
        base_model: the class that all models of the host inherit.
        name: the method's.
        around: has to call the method it is given, and to return what that returns.
    """
    if not first_time(base_model, name):
        return

    def wrap(model: type, _: Mapping[str, Any]) -> None:
        order = model.__mro__
        for owner in order[: order.index(base_model) + 1]:  # mixins included, which inherit nothing of the host
            own = vars(owner).get(name)
            if _is_method(own) and own not in _wrapped:
                replacement = _replacement(own, around)
                _wrapped.add(replacement)
                setattr(owner, name, replacement)

    before_construction(base_model, wrap)


def _is_method(own: Any) -> bool:
    return hasattr(own, "__get__") and not isinstance(own, (staticmethod, classmethod, property))


def _replacement(own: Any, around: Around) -> Callable[..., Any]:
    @functools.wraps(own)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(self, own.__get__(self, type(self)), *args, **kwargs)

    return method
