"""What is wrong with a training by its numbers, each with its cure."""

from __future__ import annotations

from collections.abc import Iterator

from clp_basicsr.diagnostics import Report


def advice(
    report: Report, weight: float, pixel_weight: float = 1.0, *, range_norm: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield ``(kind, text)`` for everything that is wrong, each with its cure.

    Args:
        report: what was measured.
        weight: what the loss is multiplied by, to say what it should be.
        pixel_weight: what the pixel loss is multiplied by, where that is small on purpose, as beside a GAN loss: its
            gradient at weight 1 is then what is compared with.
        range_norm: whether the loss maps images from [-1, 1].
    """
    whole, mean = report.whole, report.mean
    if whole["target_min"] < -0.05 or whole["target_max"] > 1.05:
        yield (
            "range",
            f"GT has values from {whole['target_min']:.2f} to {whole['target_max']:.2f}, but the loss expects [0, 1]. "
            "For [-1, 1] set `range_norm: true`; for 8-bit images divide by 255.",
        )
    if range_norm and whole["target_min"] > 0.49:
        yield (
            "range",
            "GT has no value in the lower half of [-1, 1]. If your images are in [0, 1], leave `range_norm: true` out: "
            "with it the network sees them pale.",
        )
    if mean("flat") > 0.9:
        yield (
            "flat",
            f"GT and its negatives hardly differ ({mean('flat'):.0%} of the terms are flat): the loss cannot tell "
            "where detail is missing. Check that `dataroot_lq` and `dataroot_gt` are not the same images.",
        )
        return
    if mean("active") < 0.01 and mean("pull") > 0.05:
        yield (
            "dead",
            f"The loss is dead: {mean('active'):.1%} of its terms contribute, while SR is still {mean('pull'):.2f} "
            "gaps away from GT. A fixed `margin` does that; use `margin: relative`, or a larger one.",
        )
    if mean("from_negative") < 0.02:
        yield (
            "negative",
            "SR equals the upsampled LR: the network adds nothing yet. If this lasts, look at its learning rate and "
            "at the pixel loss.",
        )
    if mean("overshoot") > 0.2:
        yield (
            "overshoot",
            f"SR overshoots GT by {mean('overshoot'):.0%} of the gap on average: it is over-sharpened in feature "
            "space. Lower `loss_weight` or `push_weight`, or use `margin: relative`.",
        )
    ratio = whole["gradient_ratio"] * pixel_weight
    if ratio > 10:
        at_weight_one = "" if pixel_weight == 1 else " at weight 1"
        yield (
            "gradient",
            f"The loss's gradient at the SR image is {ratio:.0f} times the pixel loss's{at_weight_one}: it paints "
            f"artefacts. Set `auto_weight: {0.1 / pixel_weight:g}`, or a `loss_weight` of about {weight / ratio:.1e} "
            "for equal parts.",
        )
