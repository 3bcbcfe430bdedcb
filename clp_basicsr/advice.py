"""What is wrong with a training by its numbers, each with its cure.

The limits are far from what trainings of the demo and the study show: a warning that comes unasked is not read the
next time.
"""

from __future__ import annotations

from collections.abc import Iterator

from clp_basicsr.diagnostics import Report

Finding = tuple[str, str]
"""What kind it is, and the text."""

_BEYOND_THE_RANGE = 0.05
_LOWER_HALF = 0.49  # of [0, 1], after [-1, 1] was mapped there
_ALL_FLAT = 0.9  # of the terms
_NONE_ACTIVE, _NOT_THERE_YET = 0.01, 0.05  # of the terms; gaps away from GT
_AT_THE_NEGATIVE = 0.02  # gaps away from it
_TOO_FAR = 0.2  # gaps beyond GT
_DROWNS = 10  # times the pixel loss's gradient


def advice(report: Report, weight: float, pixel_weight: float = 1.0, *, range_norm: bool = False) -> Iterator[Finding]:
    """Yield everything that is wrong, each with its cure.

    Args:
        report: what was measured.
        weight: what the loss is multiplied by, to say what it should be.
        pixel_weight: what the pixel loss is multiplied by, where that is small on purpose, as beside a GAN loss: its
            gradient at weight 1 is then what is compared with.
        range_norm: whether the loss maps images from [-1, 1].
    """
    yield from _of_the_range(report, range_norm)
    if report.mean("flat") > _ALL_FLAT:
        yield (
            "flat",
            f"GT and its negatives hardly differ ({report.mean('flat'):.0%} of the terms are flat): the loss cannot "
            "tell where detail is missing. Check that `dataroot_lq` and `dataroot_gt` are not the same images.",
        )
        return  # what else is off follows from it
    yield from _of_the_terms(report)
    yield from _of_the_gradient(report, weight, pixel_weight)


def _of_the_range(report: Report, range_norm: bool) -> Iterator[Finding]:
    low, high = report.whole["target_min"], report.whole["target_max"]
    if low < -_BEYOND_THE_RANGE or high > 1 + _BEYOND_THE_RANGE:
        yield (
            "range",
            f"GT has values from {low:.2f} to {high:.2f}, but the loss expects [0, 1]. For [-1, 1] set "
            "`range_norm: true`; for 8-bit images divide by 255.",
        )
    if range_norm and low > _LOWER_HALF:
        yield (
            "range",
            "GT has no value in the lower half of [-1, 1]. If your images are in [0, 1], leave `range_norm: true` out: "
            "with it the network sees them pale.",
        )


def _of_the_terms(report: Report) -> Iterator[Finding]:
    mean = report.mean
    if mean("active") < _NONE_ACTIVE and mean("pull") > _NOT_THERE_YET:
        yield (
            "dead",
            f"The loss is dead: {mean('active'):.1%} of its terms contribute, while SR is still {mean('pull'):.2f} "
            "gaps away from GT. A fixed `margin` does that; use `margin: relative`, or a larger one.",
        )
    if mean("from_negative") < _AT_THE_NEGATIVE:
        yield (
            "negative",
            "SR equals the upsampled LR: the network adds nothing yet. If this lasts, look at its learning rate and "
            "at the pixel loss.",
        )
    if mean("overshoot") > _TOO_FAR:
        yield (
            "overshoot",
            f"SR overshoots GT by {mean('overshoot'):.0%} of the gap on average: it is over-sharpened in feature "
            "space. Lower `loss_weight` or `push_weight`, or use `margin: relative`.",
        )


def _of_the_gradient(report: Report, weight: float, pixel_weight: float) -> Iterator[Finding]:
    ratio = report.whole["gradient_ratio"] * pixel_weight
    if ratio > _DROWNS:
        at_weight_one = "" if pixel_weight == 1 else " at weight 1"
        yield (
            "gradient",
            f"The loss's gradient at the SR image is {ratio:.0f} times the pixel loss's{at_weight_one}: it paints "
            f"artefacts. Set `auto_weight: {0.1 / pixel_weight:g}`, or a `loss_weight` of about {weight / ratio:.1e} "
            "for equal parts.",
        )
