"""Notes on a host's class or function which of our changes it has: none is made twice, even by a second copy of us."""

from __future__ import annotations

from typing import Any


def first_time(owner: Any, what: str) -> bool:
    """Note on a class or function that ``what`` is done to it, which outlives a reload; say whether it was not yet."""
    done: set[str] = vars(owner).get("_clp_done", set())
    owner._clp_done = done | {what}
    return what not in done
