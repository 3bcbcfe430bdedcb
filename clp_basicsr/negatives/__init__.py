"""Negatives: the images that SR is pushed away from."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clp_basicsr.messages import did_you_mean, not_a_choice, shown
from clp_basicsr.negatives.base import Negative, Source, Step
from clp_basicsr.negatives.batch import OtherImages
from clp_basicsr.negatives.blur import BlurredGT
from clp_basicsr.negatives.degraded import DegradedLR
from clp_basicsr.negatives.lagged import LaggedNetwork
from clp_basicsr.negatives.lr import UpsampledLR, upsampled_lr
from clp_basicsr.negatives.supplied import Supplied

__all__ = [
    "SOURCES",
    "Negative",
    "Source",
    "Step",
    "build_sources",
    "depend_on_the_iteration",
    "upsampled_lr",
]

SOURCES: dict[str, Callable[..., Source]] = {
    "lr": UpsampledLR,
    "blur": BlurredGT,
    "degraded": DegradedLR,
    "lagged": LaggedNetwork,
    "ema": functools.partial(LaggedNetwork, every=1, decay=0.999),
    "files": Supplied,
    "batch": OtherImages,
}


def build_sources(given: object) -> list[Source]:
    """Return the sources that ``negatives`` asks for.

    Args:
        given: a name out of `SOURCES`, or a list of names and mappings such as
            ``{"type": "blur", "count": 3}``.

    Raises:
        TypeError: if it is none of these, or a source does not know a keyword.
        ValueError: for an unknown name, an empty list, or a value out of range.
    """
    entries = given if isinstance(given, (list, tuple)) else [given]
    if not entries:
        raise ValueError("Argument `negatives` must name at least one source, but got none.")
    sources = [_build(entry) for entry in entries]
    _tell_twins_apart(sources)
    return sources


def depend_on_the_iteration(sources: Sequence[Source]) -> bool:
    """Say whether any of ``sources`` gives something else in another iteration, of the same images."""
    return any(source.varies for source in sources)


def _tell_twins_apart(sources: list[Source]) -> None:
    """Let sources of the same kind and seed draw differently."""
    seen: Counter[tuple[type, int]] = Counter()
    for source in sources:
        draws = getattr(source, "draws", None)
        if draws is not None:
            draws.twin = seen[type(source), draws.seed]
            seen[type(source), draws.seed] += 1


def _build(entry: object) -> Source:
    settings: dict[Any, Any] = dict(entry) if isinstance(entry, Mapping) else {"type": entry}
    if "type" not in settings:
        keys = [shown(key).strip("'") for key in settings]
        raise ValueError(
            f"In `negatives`, each mapping must have a `type` out of {list(SOURCES)}, but got one with only {keys}."
            f"{next((hint for hint in (did_you_mean(key, ['type']) for key in keys) if hint), '')}"
        )
    name = settings.pop("type")
    if not isinstance(name, str) or name not in SOURCES:
        raise ValueError(not_a_choice("negatives", name, list(SOURCES)))
    signature = inspect.signature(SOURCES[name])
    _reject_unknown(name, settings, list(signature.parameters))
    try:
        source = SOURCES[name](**settings)
    except (TypeError, ValueError) as error:
        raise type(error)(f"In `negatives`, source '{name}': {error}") from error
    source.name, source.settings = name, _with_defaults(signature, settings)
    return source


def _with_defaults(signature: inspect.Signature, settings: Mapping[str, Any]) -> dict[str, Any]:
    complete = signature.bind(**settings)
    complete.apply_defaults()
    return {name: _written_as(signature.parameters[name].default, value) for name, value in complete.arguments.items()}


def _written_as(default: Any, value: Any) -> Any:
    """Return a value that was accepted as the default is written: YAML has lists for tuples, and 1 for 1.0."""
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        return tuple(_written_as(default[0], each) for each in value)
    return float(value) if isinstance(default, float) else value


def _reject_unknown(name: str, settings: Mapping[Any, Any], known: Sequence[str]) -> None:
    for keyword in settings:
        if keyword not in known:
            raise TypeError(
                f"In `negatives`, source '{name}' has no keyword {shown(keyword)}; it must be one of {known}."
                f"{did_you_mean(keyword, known)}"
            )
