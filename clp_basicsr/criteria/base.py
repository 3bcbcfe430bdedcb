"""What a criterion is, and the distances that all of them measure.

Shapes: ``anchor`` (SR) and ``positive`` (GT) are features ``(N, C, h, w)`` of one layer,
``negatives`` are ``(K, N, C, h, w)`` for K negatives per image. Only ``anchor`` carries gradient. They may be
in half precision; distances, and all that follows from them, are in float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clp_basicsr.distances import Distance
from clp_basicsr.gpu import distances as gpu_distances

# The floor below a gap: the share of its mean and of the mean size of GT's features, and what is added. A mean gap that
# is small beside that size, as in flat crops and pairs with LR == GT, counts as `Distance.least_gap` of it: in units of
# its own gap a black crop has 90 times the gradient of others, and a few are all that a batch trains on
# (docs/evidence.md). All means are taken per image, so that a batch is the mean of its images.
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
        """Distance SR-GT in units of the gap GT-negative and a floor: below 1 at the negative, 0 at GT; 0-dim."""
        return self.numbers[0]

    @property
    def push(self) -> Tensor:
        """How much nearer SR is to the negative than GT is, in the same units: as ``pull`` there, 0 at GT; 0-dim."""
        return self.numbers[1]

    @property
    def active(self) -> Tensor:
        """Share of the terms that contribute to the loss, in [0, 1]; 0-dim."""
        return self.numbers[2]


Layer = tuple[Tensor, Tensor, Tensor]
"""A layer's ``anchor``, ``positive`` and ``negatives``."""


class Criterion(ABC):
    """One layer's features to its terms, and how the layers add up."""

    distance: Distance
    """What it measures with."""

    @property
    def is_mean_over_images(self) -> bool:
        """Whether the value of a batch is the mean of its images' values."""
        return True

    def way_of_measuring(self, weight: float, positions: int) -> tuple[float, float]:
        """Return `measure`'s ``scale`` and ``eps`` for a layer of this weight, with maps of so many positions."""
        return 1.0, 0.0

    def measured(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Distances:
        """Return the distances of a layer, measured in this criterion's way."""
        scale, eps = self.way_of_measuring(weight, anchor.shape[-2:].numel())
        return measure(anchor, positive, negatives, self.distance, scale, eps)

    @property
    def weighs_negatives(self) -> bool:
        """Whether it has a weight of its own for each of a certain number of negatives."""
        return False

    def without_negatives(self, before: int, after: int) -> Criterion:
        """Return the criterion of those negatives alone that stand ``before`` and ``after`` some that are left out."""
        return self

    @abstractmethod
    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the terms of a layer; ``terms.loss`` already holds the layer's ``weight``.

        Args:
            anchor: SR's features ``(N, C, h, w)``, which carry gradient.
            positive: GT's, of the same shape.
            negatives: those of K negatives for each image, ``(K, N, C, h, w)``.
            weight: of the layer, > 0.

        Raises:
            ValueError: by `BatchRatio` alone, if it has weights for another number of negatives.
        """

    def of_layers(self, layers: Sequence[Layer], weights: Sequence[float]) -> list[Terms]:
        """Return the terms of each layer."""
        return [self(*layer, weight) for layer, weight in zip(layers, weights)]

    def normaliser(self, weights: Sequence[float]) -> float:
        """Return what the sum of the layers' losses is divided by: their weights', for the weighted mean."""
        return sum(weights)


class Distances(NamedTuple):
    """A = d(sr, gt) ``(N, T)``; N = d(sr, negative), P = d(gt, negative), P + floor ``(K, N, T)``."""

    to_positive: Tensor
    to_negatives: Tensor
    gap: Tensor
    unit: Tensor

    def pull(self) -> Tensor:
        """Return ``A / (P + floor)``."""
        return self.to_positive[None] / self.unit

    def push(self) -> Tensor:
        """Return ``relu(P - N) / (P + floor)``."""
        return torch.relu(self.gap - self.to_negatives) / self.unit


def measure(
    anchor: Tensor, positive: Tensor, negatives: Tensor, distance: Distance, scale: float = 1.0, eps: float = 0.0
) -> Distances:
    """Return the distances of a layer.

    Args:
        anchor: SR's features ``(N, C, h, w)``, which carry gradient.
        positive: GT's, of the same shape.
        negatives: ``(K, N, C, h, w)``.
        distance: what to measure with.
        scale: multiplies the features.
        eps: is added to differences from SR.
    """
    if distance.order is not None and gpu_distances.can_measure(anchor, positive, negatives):
        how = gpu_distances.Measure(
            distance.order, scale, eps, (_OF_GAP, _OF_SIZE * scale, distance.least_gap * scale, _LEAST)
        )
        return Distances(*gpu_distances.measured(anchor, positive, negatives, how))
    with torch.no_grad():
        gap = distance.between(positive, negatives, scale)
        mean, size = (each.mean(-1, keepdim=True) for each in (gap, scale * distance.size(positive)))
        floor = torch.maximum(_OF_GAP * mean + _OF_SIZE * size, distance.least_gap * size - mean) + _LEAST
    return Distances(
        to_positive=distance.between(anchor, positive, scale, eps),
        to_negatives=distance.between(anchor, negatives, scale, eps),
        gap=gap,
        unit=gap + floor,
    )


def side_by_side(layers: Sequence[Distances]) -> Distances:
    """Return all layers' distances as those of one image with all their terms: ``(M,)`` and ``(K, M)``."""
    return Distances(*(torch.cat([distances.flatten(-2) for distances in each], -1) for each in zip(*layers)))


def terms(loss: Tensor, pull: Tensor, push: Tensor, contributes: Tensor) -> Terms:
    """Return the terms of a layer.

    Args:
        loss: of the layer, 0-dim.
        pull: as `Distances.pull`, ``(K, N, T)``.
        push: as `Distances.push`, of the same shape.
        contributes: whether each term is part of ``loss``; of the same number of entries for each negative.
    """
    of_each_negative = (numbers.flatten(1) for numbers in (pull, push, contributes))
    (result,) = terms_of_layers([loss], [pull[0].numel()], *of_each_negative)
    return result


def terms_of_layers(
    losses: Sequence[Tensor], sizes: list[int], pull: Tensor, push: Tensor, contributes: Tensor
) -> list[Terms]:
    """Return the terms of layers that lie `side_by_side`.

    Args:
        losses: of each layer, 0-dim.
        sizes: how many of the M terms are each layer's.
        pull: ``(K, M)``.
        push: of the same shape.
        contributes: whether each term is part of its layer's loss; of the same shape.
    """
    each = torch.stack((pull.detach(), push.detach(), contributes.to(pull.dtype)))
    return [Terms(loss, own.mean((1, 2)), own.numel() // 3) for loss, own in zip(losses, torch.split(each, sizes, -1))]
