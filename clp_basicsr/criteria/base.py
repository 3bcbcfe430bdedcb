"""What a criterion is, and the distances that all of them measure.

Shapes: ``anchor`` (SR) and ``positive`` (GT) are features ``(N, C, h, w)`` of one layer,
``negatives`` are ``(K, N, C, h, w)`` for K negatives per image. Only ``anchor`` carries gradient. They may be
in half precision; distances, and all that follows from them, are in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from clp_basicsr.distances import Distance
from clp_basicsr.gpu import distances as gpu_distances

# The floor below a gap: the share of its mean and of the mean size of GT's features, and what is added. The part of
# the features' size keeps flat crops and pairs with LR == GT (a gap of 0) at ordinary size; both are taken per image,
# so that a batch is the mean of its images.
_OF_GAP, _OF_SIZE, _LEAST = 0.05, 0.01, 1e-6


class Terms(NamedTuple):
    """What one layer says."""

    loss: Tensor
    """0-dim."""
    numbers: Tensor
    """`pull`, `push` and `active`, detached, ``(3,)``; three tensors would be three times the work of the CPU."""
    total: int
    """How many terms there are."""

    @property
    def pull(self) -> Tensor:
        """Distance SR-GT in units of the gap GT-negative: 1 at the negative, 0 at GT; 0-dim."""
        return self.numbers[0]

    @property
    def push(self) -> Tensor:
        """How much nearer SR is to the negative than GT is, in the same units: 1 there, 0 at GT; 0-dim."""
        return self.numbers[1]

    @property
    def active(self) -> Tensor:
        """Share of the terms that contribute to the loss, in [0, 1]; 0-dim."""
        return self.numbers[2]


class Criterion(Protocol):
    """One layer's features to its terms, and how the layers add up."""

    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the terms of a layer; ``terms.loss`` already holds the layer's ``weight``."""
        ...

    def normaliser(self, weights: Sequence[float]) -> float:
        """Return what the sum of the layers' losses is divided by."""
        ...


class Distances(NamedTuple):
    """A = d(sr, gt) ``(N, T)``; N = d(sr, negative), P = d(gt, negative), P + floor ``(K, N, T)``."""

    to_positive: Tensor
    to_negatives: Tensor
    gap: Tensor
    unit: Tensor

    def pull(self) -> Tensor:
        """Return ``A / (P + floor)``."""
        return self.to_positive / self.unit

    def push(self) -> Tensor:
        """Return ``relu(P - N) / (P + floor)``."""
        return torch.relu(self.gap - self.to_negatives) / self.unit


def measure(
    anchor: Tensor, positive: Tensor, negatives: Tensor, distance: Distance, scale: float = 1.0, eps: float = 0.0
) -> Distances:
    """Return the distances of a layer; ``scale`` multiplies the features, ``eps`` is added to differences."""
    if distance.order is not None and gpu_distances.can_measure(anchor, positive, negatives):
        how = gpu_distances.Measure(distance.order, scale, eps, (_OF_GAP, _OF_SIZE * scale, _LEAST))
        return Distances(*gpu_distances.measured(anchor, positive, negatives, how))
    with torch.no_grad():
        gap = distance.between(positive, negatives, scale)
        size = distance.size(positive).mean(-1, keepdim=True)
        floor = torch.add(_OF_GAP * gap.mean(-1, keepdim=True), size, alpha=_OF_SIZE * scale) + _LEAST
    return Distances(
        to_positive=distance.between(anchor, positive, scale, eps),
        to_negatives=distance.between(anchor, negatives, scale, eps),
        gap=gap,
        unit=gap + floor,
    )


def terms(loss: Tensor, pull: Tensor, push: Tensor, contributes: Tensor) -> Terms:
    """Return the terms of a layer; ``contributes`` says of each term whether it is part of ``loss``."""
    each = torch.stack((pull.detach(), push.detach(), contributes.to(pull.dtype)))
    return Terms(loss, each.flatten(1).mean(1), contributes.numel())
