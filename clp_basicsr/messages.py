"""The wording of errors: what was wrong, what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Sequence
from itertools import takewhile

_LONGEST = 200
_LONGEST_REASON = 800


def did_you_mean(given: object, allowed: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` where ``given`` is close to one of ``allowed``, else ``""``."""
    names = list(allowed)
    meant = given if isinstance(given, str) else shown(given)
    other_capitals = [name for name in names if name.lower() == meant.lower()]
    close = difflib.get_close_matches(meant, names, n=10, cutoff=0.6) if len(meant) <= _LONGEST else []
    near = other_capitals or close
    if not near:
        return ""
    # Among equally good ones the first of the list: efficientnet_lite0 for efficientnet_lite.
    best = max(sorted(near, key=names.index), key=lambda name: _similarity(meant, name))
    return f" Did you mean '{best}'?"


def _similarity(given: str, name: str) -> tuple[float, int]:
    """Among names that are equally near, the one that starts alike is meant: relu1_2 for relu1_3."""
    shared_start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(given, name)))
    return difflib.SequenceMatcher(a=given, b=name).ratio(), shared_start


def not_a_choice(argument: str, given: object, allowed: Sequence[str], extra: str = "") -> str:
    """Say that ``given`` is not one of the ``allowed`` values of ``argument``."""
    return (
        f"Argument `{argument}` must be one of {list(allowed)}{extra}, but got {shown(given)}."
        f"{did_you_mean(given, allowed)}"
    )


def needs_package(what: str, package: str, cure: str, error: ImportError | None = None) -> str:
    """Say that ``what`` cannot do without ``package``.

    Args:
        what: the beginning of the sentence.
        package: its name for pip.
        cure: what to do, a sentence.
        error: what importing it raised; None where it is known to be absent.
    """
    state = "is not installed"
    if error is not None and (error.name or "").partition(".")[0] != package.replace("-", "_"):
        state = f"cannot be imported ({reason(error)})"
    return f"{what} needs the package '{package}', which {state}. {cure}"


def warn(text: str) -> None:
    """Warn as from the line outside this package that led here."""
    level, frame = 1, sys._getframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    warnings.warn(text, stacklevel=level)


def shown(given: object) -> str:
    """Return ``repr(given)``, cut where it is long; where there is none, what kind of thing it is."""
    try:
        text = repr(given)
    except Exception:  # a number of 5000 digits, a list of 5000 levels, a class that cannot print itself
        return f"a {type(given).__name__} that cannot be printed"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def reason(error: BaseException) -> str:
    """Return the first line of what ``error`` says, cut where it is long, or its kind where it says nothing."""
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
