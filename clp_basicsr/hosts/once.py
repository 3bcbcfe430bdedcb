"""A host's classes are changed once, however often, and in however many copies of this package, that is asked for."""

from __future__ import annotations

from typing import Any


def first_time(owner: type[Any], what: str) -> bool:
    """Say whether ``what`` is now done to a class for the first time; it is noted there, and outlives a reload."""
    done: set[str] = vars(owner).get("_clp_done", set())
    owner._clp_done = done | {what}
    return what not in done
