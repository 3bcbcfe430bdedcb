"""Criteria: what the distances between SR, GT and negatives are turned into, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from clp_basicsr import arguments
from clp_basicsr.criteria.base import Criterion, Terms
from clp_basicsr.criteria.directional import Directional
from clp_basicsr.criteria.infonce import InfoNCE
from clp_basicsr.criteria.ratio import BatchRatio, Ratio
from clp_basicsr.criteria.triplet import FixedMarginTriplet, RelativeTriplet
from clp_basicsr.distances import DISTANCES
from clp_basicsr.messages import not_a_choice, shown

__all__ = ["CRITERIA", "OPTIONS", "Criterion", "Terms", "build_criterion"]

Options = Mapping[str, Any]

OPTIONS: dict[str, object] = {
    "margin": "relative",
    "push_weight": 1.0,
    "swap": False,
    "soft": False,
    "reduction": "mean",
    "floor": 0.1,
    "over_negatives": "mean",
    "temperature": 0.07,
    "capped": True,
}
"""The keywords of all criteria and their defaults."""


def build_criterion(name: object, distance: object, options: Options) -> Criterion:
    """Return the criterion of a name.

    Args:
        name: a key of `CRITERIA`.
        distance: a key of `clp_basicsr.distances.DISTANCES`.
        options: a value for each key of `OPTIONS`.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an unknown name, or an option that is out of range or belongs to another criterion.
    """
    chosen = arguments.choice("criterion", name, list(CRITERIA))
    measure = arguments.choice("distance", distance, list(DISTANCES))
    build, own = CRITERIA[chosen]
    for option, default in OPTIONS.items():
        if option not in own and not _is(options[option], default):
            owners = [each for each, (_, keywords) in CRITERIA.items() if option in keywords]
            raise ValueError(
                f"Argument `{option}` must be left out with criterion '{chosen}', but got {shown(options[option])}; "
                f"it belongs to {' and '.join(map(repr, owners))}."
            )
    return build(measure, options)


def _is(given: object, default: object) -> bool:
    """Compare by type first: arrays answer ``==`` with an array, tensors of the meta device not at all."""
    alike = isinstance(given, bool) == isinstance(default, bool)  # True == 1.0
    return alike and isinstance(given, (str, int, float)) and given == default


def _triplet(distance: str, options: Options) -> Criterion:
    push_weight = arguments.number("push_weight", options["push_weight"], zero_allowed=True)
    swap, soft = arguments.flag("swap", options["swap"]), arguments.flag("soft", options["soft"])
    reduction = arguments.choice("reduction", options["reduction"], ["mean", "nonzero"])
    margin = options["margin"]
    if isinstance(margin, str):
        if margin != "relative":
            advice = arguments.yaml_hint(margin)
            raise ValueError(not_a_choice("margin", margin, ["relative"], " or a number > 0") + advice)
        for option in ("swap", "soft", "reduction"):
            if options[option] != OPTIONS[option]:
                raise ValueError(
                    f"Argument `{option}` must be left out with margin='relative', but got {shown(options[option])}; "
                    "it belongs to a margin that is a number."
                )
        return RelativeTriplet(DISTANCES[distance], push_weight)
    if push_weight != 1.0:
        raise ValueError(
            f"Argument `push_weight` must be left out with a fixed margin, but got {shown(options['push_weight'])} "
            f"with margin {shown(margin)}; it belongs to margin='relative'."
        )
    return FixedMarginTriplet(DISTANCES[distance], arguments.number("margin", margin), swap, soft, reduction)


def _ratio(distance: str, options: Options) -> Criterion:
    return Ratio(DISTANCES[distance], arguments.number("floor", options["floor"]))


def _batch_ratio(distance: str, options: Options) -> Criterion:
    pooled = options["over_negatives"]
    if isinstance(pooled, (list, tuple)) and pooled:
        pooled = tuple(arguments.number("over_negatives", each, zero_allowed=True) for each in pooled)
        if not any(pooled):
            raise ValueError("Argument `over_negatives` must hold a weight above 0, but got only zeros.")
        return BatchRatio(DISTANCES[distance], pooled)
    if not isinstance(pooled, str) or pooled not in ("mean", "sum"):
        raise ValueError(not_a_choice("over_negatives", pooled, ["mean", "sum"], " or a list of one weight a negative"))
    return BatchRatio(DISTANCES[distance], pooled)


def _infonce(distance: str, options: Options) -> Criterion:
    _only("infonce", distance, "cosine")
    return InfoNCE(arguments.number("temperature", options["temperature"]), arguments.flag("capped", options["capped"]))


def _directional(distance: str, options: Options) -> Criterion:
    _only("directional", distance, "l2")
    return Directional(arguments.number("push_weight", options["push_weight"], zero_allowed=True))


def _only(criterion: str, distance: str, possible: str) -> None:
    """Accept the default distance beside the only one that a criterion is defined for."""
    if distance not in (possible, "l2"):
        raise ValueError(
            f"Argument `distance` must be '{possible}' or left out with criterion '{criterion}', but got '{distance}'."
        )


CRITERIA: dict[str, tuple[Callable[[str, Options], Criterion], tuple[str, ...]]] = {
    "triplet": (_triplet, ("margin", "push_weight", "swap", "soft", "reduction")),
    "ratio": (_ratio, ("floor",)),
    "batch_ratio": (_batch_ratio, ("over_negatives",)),
    "infonce": (_infonce, ("temperature", "capped")),
    "directional": (_directional, ("push_weight",)),
}
"""By name: how a criterion is built, and which of the `OPTIONS` are its own."""
