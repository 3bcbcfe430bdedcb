"""The wording of errors: what was wrong, what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def did_you_mean(given: object, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` where ``given`` is close to one of ``allowed``, else ``""``."""
    near = difflib.get_close_matches(str(given), list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def not_a_choice(argument: str, given: object, allowed: Sequence[str], extra: str = "") -> str:
    """Say that ``given`` is not one of the ``allowed`` values of ``argument``."""
    return (
        f"Argument `{argument}` must be one of {list(allowed)}{extra}, but got {given!r}.{did_you_mean(given, allowed)}"
    )


def reason(error: BaseException) -> str:
    """Return the first line of what ``error`` says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
