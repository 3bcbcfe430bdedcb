"""The numbers a training run should show, layer by layer, and the warnings that follow from them.

What is measured stays on the device until `Diagnostics.read`: one transfer, when somebody looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clp_basicsr.criteria.base import Terms, measure
from clp_basicsr.distances import DISTANCES
from clp_basicsr.gradients import squared_norm_of_pixel_loss

EVERY = 10
"""Iterations from one measurement of the layers to the next."""
GRADIENT_EVERY = 100
"""Calls from one measurement of the gradient to the next."""

LAYER = ("pull", "push", "active", "progress", "overshoot", "flat", "from_negative")
WHOLE = ("gradient_ratio", "target_min", "target_max")
_L2 = DISTANCES["l2"]._replace(least_gap=0.0)  # which of the channels tell is seen by the image's own gaps


class Diagnostics(NamedTuple):
    """What one call of the loss looked like; tensors are detached and on the device."""

    layers: dict[str, Tensor]
    """By layer, the numbers of `LAYER`, shape ``(7,)``."""
    whole: Tensor
    """The numbers of `WHOLE`, shape ``(3,)``; the ratio, which a backward pass tells, is NaN before there was one.

    It is the middle one of the last three measurements: a single dark or flat crop can have many times the usual.
    """

    def read(self) -> Report:
        """Bring the numbers to the CPU; this waits for the device."""
        values = torch.stack((*self.layers.values(),)).double().cpu().tolist()
        layers = {name: dict(zip(LAYER, row)) for name, row in zip(self.layers, values)}
        return Report(layers, dict(zip(WHOLE, self.whole.double().cpu().tolist())))


class Report(NamedTuple):
    """`Diagnostics` as numbers."""

    layers: dict[str, dict[str, float]]
    whole: dict[str, float]

    def mean(self, name: str) -> float:
        """Return the mean of one of `LAYER` over layers."""
        return sum(layer[name] for layer in self.layers.values()) / len(self.layers)

    def scalars(self) -> dict[str, float]:
        """Return everything by the names of TensorBoard: ``clp/relu1_2/pull``, ``clp/gradient_ratio`` and so on."""
        by_layer = {f"clp/{layer}/{name}": value for layer, row in self.layers.items() for name, value in row.items()}
        return {**by_layer, **{f"clp/{name}": value for name, value in self.whole.items() if value == value}}


def layer_numbers(sums: Tensor) -> Tensor:
    """Return the numbers of `LAYER`, shape ``(7,)``, of all `layer_sums` of a batch added up.

    ``progress`` is the way from the negative to GT that SR has gone, ``<sr-neg, gt-neg> / P^2`` per
    channel: 0 at the negative, 1 at GT; ``overshoot`` is what is beyond 1; ``flat`` the share of
    channels whose gap is too small to say; ``from_negative`` SR's distance from the negative over the gap.
    """
    *rest, count = sums.unbind()
    telling = {LAYER.index(name) for name in ("progress", "overshoot", "from_negative")}
    count = count.clamp(min=1)
    return torch.stack([each / count if place in telling else each for place, each in enumerate(rest)])


@torch.no_grad()
def layer_sums(anchor: Tensor, positive: Tensor, negatives: Tensor, terms: Terms, share: float = 1.0) -> Tensor:
    """Return what adds up over the parts of a batch: means times their share, or sums and, at the end, of how many.

    Args:
        anchor: SR's features as a criterion gets them.
        positive: GT's.
        negatives: those of the negatives.
        terms: what the criterion said of them.
        share: of the batch.
    """
    d = measure(anchor, positive, negatives, _L2)
    tells = d.gap > 0.5 * d.unit
    # 2 <sr-neg, gt-neg> = N^2 + P^2 - A^2: of the distances alone, without another map the size of the features.
    squares = d.to_negatives.square() + d.gap.square() - d.to_positive.square()
    gone = torch.where(tells, squares / (2 * d.gap.square()).clamp(min=torch.finfo(d.gap.dtype).tiny), 0)
    away = torch.where(tells, d.to_negatives / d.unit, 0)
    numbers = (
        share * terms.pull,
        share * terms.push,
        share * terms.active,
        gone.sum(),
        torch.relu(gone - 1).sum(),
        share * (1 - tells.to(gone.dtype).mean()),
        away.sum(),
        tells.sum(),
    )
    return torch.stack([number.detach().to(gone.dtype) for number in numbers])


def warnings(
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


class Probe:
    """Measures a loss at some of its calls."""

    def __init__(self) -> None:
        """Begin with the first call."""
        self.calls = 0
        self.measured: tuple[int, int | None] = (0, None)
        self.sums: dict[str, Tensor] = {}
        self.range: Tensor | None = None
        self.gradient_ratios: deque[Tensor] = deque(maxlen=3)  # at weight 1: warm-up and `auto_weight` change it

    def begin(self, target: Tensor, iteration: int | None = None) -> bool:
        """Count a call and return whether its layers are to be measured.

        Args:
            target: GT as the network gets it.
            iteration: of the training; None where nobody knows it, then calls count.
        """
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return False  # a count would mean a compilation for every call; a validation is no part of the training
        self.calls += 1
        if not self._is_due(iteration):
            return False
        self.measured = self.calls, iteration
        self.sums = {}
        self.range = torch.stack(target.detach().float().aminmax())
        return True

    def _is_due(self, iteration: int | None) -> bool:
        """Take the first call, and those that hosts log: of every 50th or 100th iteration."""
        last_call, last_iteration = self.measured
        if iteration is None:
            return self.calls == 1 or self.calls % EVERY == 0
        stands_still = self.calls - last_call >= 2 * EVERY  # the model's schedulers count epochs
        return self.calls == 1 or stands_still or (iteration % EVERY == 0 and iteration != last_iteration)

    def add_layer(
        self, name: str, anchor: Tensor, positive: Tensor, negatives: Tensor, terms: Terms, share: float = 1.0
    ) -> None:
        """Measure a layer, of which these images are a ``share``."""
        sums = layer_sums(anchor, positive, negatives, terms, share)
        self.sums[name] = self.sums[name] + sums if name in self.sums else sums

    def gradient_is_due(self, sr: Tensor) -> bool:
        """Say whether `watch_gradient` is wanted for the call that comes next."""
        if torch.compiler.is_compiling() or not (sr.requires_grad and torch.is_grad_enabled()):
            return False
        return self.calls % GRADIENT_EVERY == 0

    def watch_gradient(
        self, loss: Tensor, weight: float | Tensor, sr: Tensor, target: Tensor, model: Any | None
    ) -> None:
        """Measure the gradient of ``loss`` at the SR image when the host's backward pass comes by.

        One of our own would keep all activations up to its end, and so decide the peak of a training's memory.

        Args:
            loss: what the call returns.
            weight: what it is multiplied by in it.
            sr: the SR images, as a tensor that nothing but this loss is computed from.
            target: GT of the same shape.
            model: the host's model, None outside a host.
        """
        pixel = squared_norm_of_pixel_loss(sr, target, model)
        arriving: list[Tensor] = []  # what the host multiplies its losses by: a scale for float16, 1 / accumulate

        def note(gradient: Tensor) -> None:
            if not arriving:  # the gradient of a gradient, which does not come by the loss itself
                return
            own = gradient.detach().float().square().sum().sqrt() / (arriving.pop().detach().abs() * weight)
            ratio = own / pixel.sqrt().clamp(min=torch.finfo(pixel.dtype).tiny)
            # A step that overflows in float16, which the host leaves out, says nothing.
            self.gradient_ratios.append(torch.where(ratio.isfinite(), ratio, torch.nan))

        loss.register_hook(arriving.append)  # type: ignore[no-untyped-call]
        sr.register_hook(note)  # type: ignore[no-untyped-call]

    def latest(self, weight: float | Tensor) -> Diagnostics | None:
        """Return what was measured last, None before the first call; the gradient is that at the weight of now."""
        if self.range is None or not self.sums:
            return None
        nan = self.range.new_tensor(float("nan"))
        ratio = torch.stack((*self.gradient_ratios,)).nanmedian() if self.gradient_ratios else nan
        layers = {name: layer_numbers(sums) for name, sums in self.sums.items()}
        return Diagnostics(layers, torch.stack((ratio.to(self.range) * weight, *self.range)))


def scalars(reports: Mapping[str, Report]) -> dict[str, float]:
    """Return the scalars of several losses; with more than one their names stand in front."""
    several = len(reports) > 1
    return {
        (f"{name}/{tag}" if several else tag): value
        for name, report in reports.items()
        for tag, value in report.scalars().items()
    }
