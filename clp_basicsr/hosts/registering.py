"""Taking names in a host's registries, without taking anybody's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def register_own(registry: Any, whose: str, own: Sequence[Any]) -> None:
    """Register classes or functions under their own names: all of them, or none; again changes nothing.

    Args:
        registry: one of the host's.
        whose: what to call it in the error message.
        own: the classes or functions.

    Raises:
        ValueError: if somebody else has taken a name.
    """
    free = [each for each in own if each.__name__ not in registry]
    for each in own:
        if each not in free:
            _check_own(registry.get(each.__name__), whose, each)
    for each in free:
        registry.register(each)


def _check_own(taken: Any, whose: str, own: Any) -> None:
    # By name: after a reload the class is another one, but the same.
    if (taken.__module__, taken.__qualname__) != (own.__module__, own.__qualname__):
        raise ValueError(
            f"{whose} must be free to take the name {own.__name__!r}, but it holds {taken.__module__}."
            f"{taken.__qualname__}. Rename that; the registry is left as it was."
        )
