"""Names of other packages that stand for something else, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NOTHING = object()


@contextmanager
def replaced(owner: Any, name: str, substitute: Any) -> Iterator[None]:
    """Set an attribute for the time of a ``with`` block; one that was not there, such as ``open``, is gone then."""
    original = getattr(owner, name, _NOTHING)
    setattr(owner, name, substitute)
    try:
        yield
    finally:
        if original is _NOTHING:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
