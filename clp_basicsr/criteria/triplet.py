"""Triplets: the relative one, whose margin is the gap GT-negative, and the field's with a fixed margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clp_basicsr.criteria.base import Criterion, Layer, Terms, side_by_side, terms, terms_of_layers
from clp_basicsr.distances import Distance

TORCH_EPS = 1e-6  # torch.nn.TripletMarginLoss's default `eps`


@dataclass(frozen=True)
class RelativeTriplet(Criterion):
    """``w (A + push_weight relu(P - N)) / (P + floor)``: the margin is the gap GT-negative itself.

    With ``push_weight=1`` this is the triplet hinge with swapped negative distance,
    ``relu(A - min(N, P) + P)`` in units of ``P + floor``: almost 2 where SR equals the negative, 0 only at GT, no
    dead zone and no reward beyond GT. With ``push_weight=0`` it is a plain perceptual loss in the same units.
    ``floor = max(0.05 mean(P) + 0.01 S, 0.1 S - mean(P)) + 1e-6`` per image and layer, ``S = mean|f(gt)|``: it counts
    as a tenth of the features' size at least. (With ``cosine`` that is 0.005: of squares.)
    """

    distance: Distance
    push_weight: float = 1.0

    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the layer's terms; see `Criterion`."""
        (result,) = self._together([(anchor, positive, negatives)], [weight])
        return result

    def of_layers(self, layers: Sequence[Layer], weights: Sequence[float]) -> list[Terms]:
        """Return the terms of each layer, computed together: a GPU waits for the CPU that hands it small operations."""
        if torch.compiler.is_compiling():  # Inductor makes fewer of them out of each layer for itself
            return super().of_layers(layers, weights)
        return self._together(layers, weights)

    def _together(self, layers: Sequence[Layer], weights: Sequence[float]) -> list[Terms]:
        measured = [self.measured(*layer, weight) for layer, weight in zip(layers, weights)]
        d, sizes = side_by_side(measured), [each.to_positive.numel() for each in measured]
        pull, push = d.pull(), d.push()
        value = torch.add(pull, push, alpha=self.push_weight)
        losses = [own.sum() * (weight / own.numel()) for weight, own in zip(weights, torch.split(value, sizes, -1))]
        return terms_of_layers(losses, sizes, pull, push, contributes=value.detach() > 0)


@dataclass(frozen=True)
class FixedMarginTriplet(Criterion):
    """``relu(A - N + margin)`` on features times their layer weight, as in the first CLPLoss.

    Matches ``torch.nn.TripletMarginLoss(margin, swap=swap)(w f(sr), w f(gt), w f(lr))`` on features
    flattened from dim 2 (for ``l2``; ``p=1`` for ``l1``), then the plain mean over layers. ``soft``
    puts a softplus in the hinge's place; ``reduction="nonzero"`` is the mean over the terms above 0.
    Both match pytorch_metric_learning.losses.TripletMarginLoss (``smooth_loss``; AvgNonZeroReducer).
    """

    distance: Distance
    margin: float
    swap: bool = False
    soft: bool = False
    reduction: str = "mean"

    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the layer's terms; see `Criterion`."""
        d = self.measured(anchor, positive, negatives, weight)
        nearest = d.to_negatives
        if self.swap:
            nearest = torch.minimum(nearest, self.distance.between(positive, negatives, weight, TORCH_EPS))
        violation = d.to_positive - nearest + self.margin
        hinge = F.softplus(violation) if self.soft else torch.relu(violation)
        above_zero = hinge.detach() > 0
        loss = hinge.mean() if self.reduction == "mean" else hinge.sum() / above_zero.sum().clamp(min=1)
        # A softplus is never quite 0; what is beyond the margin has no say in it either.
        return terms(loss, d.pull(), d.push(), contributes=violation.detach() > 0 if self.soft else above_zero)

    @property
    def is_mean_over_images(self) -> bool:
        """Whether it is the mean of all terms: of those above 0 each image has its own number."""
        return self.reduction == "mean"

    def way_of_measuring(self, weight: float, positions: int) -> tuple[float, float]:
        """Return the layer's weight, and torch's ``eps``."""
        return weight, TORCH_EPS

    def normaliser(self, weights: Sequence[float]) -> float:
        """Return the number of layers: their weights act on the features."""
        return float(len(weights))
