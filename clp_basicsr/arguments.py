"""Checks of the keywords a person writes in Python or in a YAML file."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence

from clp_basicsr.messages import did_you_mean, not_a_choice, shown

# What people bring along when they only change `type: PerceptualLoss` to `type: CLPLoss`.
_PERCEPTUAL_LOSS_KEYWORDS = {
    "perceptual_weight": "its name here is `loss_weight`",
    "style_weight": "CLPLoss has no style (Gram) term; leave it out",
    "vgg_type": "its name here is `model`, for example `model: vgg`",
}


SMALLEST, LARGEST = 1e-12, 1e6
"""What a number may be. Weights and scales are multiplied and squared in float32, which ends at 1e-38 and 3e38."""


def reject_unknown_keywords(given: Iterable[str], known: Sequence[str]) -> None:
    """Raise for a misspelt keyword.

    Raises:
        TypeError: if anything is given.
    """
    for keyword in given:
        hint = _PERCEPTUAL_LOSS_KEYWORDS.get(keyword)
        advice = f" BasicSR's PerceptualLoss knows it: {hint}." if hint else did_you_mean(keyword, known)
        raise TypeError(f"CLPLoss has no keyword `{keyword}`; it must be one of {list(known)}.{advice}")


def choice(argument: str, given: object, allowed: Sequence[str]) -> str:
    """Return ``given`` if it is one of ``allowed``.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(given, str) or given not in allowed:
        raise ValueError(not_a_choice(argument, given, allowed))
    return given


def flag(argument: str, given: object) -> bool:
    """Return ``given`` if it is True or False.

    Raises:
        TypeError: if it is anything else.
    """
    if not isinstance(given, bool):
        raise TypeError(f"Argument `{argument}` must be true or false, but got {shown(given)}.")
    return given


def number(argument: str, given: object, *, zero_allowed: bool = False) -> float:
    """Return ``given`` as a float from `SMALLEST` to `LARGEST` (or 0, with ``zero_allowed``).

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is NaN, infinite, negative, too small or large, or 0 where that is not allowed.
    """
    bound = ">= 0" if zero_allowed else "> 0"
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        hint = yaml_hint(given)
        raise TypeError(
            f"Argument `{argument}` must be a number {bound}, but got {shown(given)} of type "
            f"{type(given).__name__}.{hint}{' In TOML: without quotes.' if '!!float' in hint else ''}"
        )
    value = _as_float(given)
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero_allowed):
        raise ValueError(f"Argument `{argument}` must be a finite number {bound}, but got {shown(given)}.")
    if value and not SMALLEST <= value <= LARGEST:
        raise ValueError(
            f"Argument `{argument}` must be {'0 or ' if zero_allowed else ''}from {SMALLEST:g} to {LARGEST:g}, but got "
            f"{shown(given)}: 32-bit numbers would make 0 or infinity of the loss."
        )
    return value


def _as_float(given: numbers.Real) -> float:
    try:
        return float(given)
    except OverflowError:
        return math.inf


def count(argument: str, given: object, *, zero_allowed: bool = False, most: int | None = None) -> int:
    """Return ``given`` if it is a whole number above 0 (or from 0 on, with ``zero_allowed``) and up to ``most``.

    Raises:
        TypeError: if it is no whole number.
        ValueError: if it is too small or too large.
    """
    kind = f"a whole number {'>= 0' if zero_allowed else '> 0'}" + (f" and <= {most}" if most else "")
    if isinstance(given, bool) or not isinstance(given, numbers.Integral):
        raise TypeError(f"Argument `{argument}` must be {kind}, but got {shown(given)}.")
    value = int(given)
    if value < (0 if zero_allowed else 1) or (most is not None and value > most):
        raise ValueError(f"Argument `{argument}` must be {kind}, but got {shown(given)}.")
    return value


def interval(argument: str, given: object) -> tuple[float, float]:
    """Return ``given`` as the smallest and the largest value of a range, both finite and >= 0.

    Raises:
        TypeError: if it is not two numbers.
        ValueError: if they are in the wrong order or negative.
    """
    if isinstance(given, (str, bytes, bytearray)) or not isinstance(given, Sequence) or len(given) != 2:
        raise TypeError(f"Argument `{argument}` must be two numbers [smallest, largest], but got {shown(given)}.")
    low, high = (number(f"{argument}[{place}]", each, zero_allowed=True) for place, each in enumerate(given))
    if low > high:
        raise ValueError(f"Argument `{argument}` must be [smallest, largest], but got {shown(given)}.")
    return low, high


def yaml_hint(given: object) -> str:
    """Return what to write where YAML made text of a number, else ``""``."""
    try:
        finite = isinstance(given, str) and math.isfinite(float(given))
    except ValueError:
        return ""
    if not finite:
        return ""
    if "e" in str(given).lower():
        return f" YAML reads 1e-4 as text: write it as `!!float {given}`."
    return f" Write it without quotes: {given}."


def layer_weights(given: object) -> dict[str, float] | None:
    """Return ``{layer: weight}`` without the layers of weight 0, or None where None was given.

    Raises:
        TypeError: if it is not a mapping from names to numbers.
        ValueError: if it is empty, has a negative or non-finite weight, or only zeros.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(
            "Argument `layer_weights` must be a mapping from layer names to weights, "
            f"for example {{'relu1_2': 0.5, 'relu2_2': 1.0}}, but got {shown(given)}."
        )
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"Argument `layer_weights` must have layer names as keys, but got {shown(name)}.")
    weights = {
        name: number(f"layer_weights[{shown(name)}]", weight, zero_allowed=True) for name, weight in given.items()
    }
    used = {name: weight for name, weight in weights.items() if weight > 0}
    if not used:
        raise ValueError(
            f"Argument `layer_weights` must give at least one layer a weight above 0, but got {shown(dict(given))}. "
            "Leave it out (or write null) for the model's default layers."
        )
    return used
