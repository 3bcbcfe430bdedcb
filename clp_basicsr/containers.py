"""What people keep in lists, tuples and mappings on their models and networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def contents(value: Any) -> Iterator[Any]:
    """Yield what is in a list, a tuple or the values of a mapping, however deep; anything else is itself."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from contents(each)
    else:
        yield value
