"""What is wrong in the options is said when a model is made, and not hours later, at the first validation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any


def check_options(base_model: Any, check: Callable[[type, Mapping[str, Any]], None]) -> None:
    """Let ``check`` see class and options of every model that is or inherits a ``base_model``, before it is built."""
    original = base_model.__init__

    @functools.wraps(original)
    def initialise(self: Any, opt: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        check(type(self), opt)
        original(self, opt, *args, **kwargs)

    base_model.__init__ = initialise
