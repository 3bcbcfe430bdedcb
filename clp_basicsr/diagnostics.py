"""The numbers a training run should show, layer by layer.

They stay on the device until `Diagnostics.read`: one transfer, when somebody looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from clp_basicsr.criteria.base import Terms, measure
from clp_basicsr.distances import DISTANCES

LAYER = ("pull", "push", "active", "progress", "overshoot", "flat", "from_negative")
WHOLE = ("gradient_ratio", "target_min", "target_max")
_L2 = DISTANCES["l2"]._replace(least_gap=0.0)  # a raised unit would call most of a shallow layer flat


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
        values = torch.stack((*self.layers.values(),)).tolist()
        layers = {name: dict(zip(LAYER, row)) for name, row in zip(self.layers, values)}
        return Report(layers, dict(zip(WHOLE, self.whole.tolist())))


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

    Returns:
        The numbers of `LAYER` and how many channels tell, ``(8,)``.
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


def scalars(reports: Mapping[str, Report]) -> dict[str, float]:
    """Return the scalars of several losses; with more than one their names stand in front."""
    several = len(reports) > 1
    return {
        (f"{name}/{tag}" if several else tag): value
        for name, report in reports.items()
        for tag, value in report.scalars().items()
    }
