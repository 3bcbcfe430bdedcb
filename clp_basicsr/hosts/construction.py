"""What happens with a host's model before it is built: mistakes in its options are said, and not hours later."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any


def before_construction(base_model: Any, act: Callable[[type, Mapping[str, Any]], None]) -> None:
    """Let ``act`` see class and options of every model that is or inherits a ``base_model``, before it is built."""
    original = base_model.__init__

    @functools.wraps(original)
    def initialise(self: Any, opt: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        act(type(self), opt)
        original(self, opt, *args, **kwargs)

    base_model.__init__ = initialise
