"""Triplets: the relative one, whose margin is the gap GT-negative, and the field's with a fixed margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clp_basicsr.criteria.base import Terms, measure, terms
from clp_basicsr.distances import Distance

TORCH_EPS = 1e-6  # torch.nn.TripletMarginLoss's default `eps`


@dataclass(frozen=True)
class RelativeTriplet:
    """``w (A + push_weight relu(P - N)) / (P + floor)``: the margin is the gap GT-negative itself.

    With ``push_weight=1`` this is the triplet hinge with swapped negative distance,
    ``relu(A - min(N, P) + P) / P``: 2 where SR equals the negative, 0 only at GT, no dead zone and
    no reward beyond GT. With ``push_weight=0`` it is a plain perceptual loss in the same units.
    ``floor = 0.05 mean(P) + 0.01 mean|f(gt)| + 1e-6`` per image and layer.
    """

    distance: Distance
    push_weight: float = 1.0

    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the layer's terms; see `Criterion`."""
        d = measure(anchor, positive, negatives, self.distance)
        pull, push = d.pull(), d.push()
        value = torch.add(pull, push, alpha=self.push_weight)
        return terms(weight * value.mean(), pull, push, contributes=value.detach() > 0)

    def normaliser(self, weights: Sequence[float]) -> float:
        """Return the sum of the weights: the loss is their weighted mean."""
        return sum(weights)


@dataclass(frozen=True)
class FixedMarginTriplet:
    """``relu(A - N + margin)`` on features times their layer weight, as the original loss.

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
        d = measure(anchor, positive, negatives, self.distance, scale=weight, eps=TORCH_EPS)
        nearest = d.to_negatives
        if self.swap:
            nearest = torch.minimum(nearest, self.distance.between(positive, negatives, weight, TORCH_EPS))
        violation = d.to_positive - nearest + self.margin
        hinge = F.softplus(violation) if self.soft else torch.relu(violation)
        above_zero = hinge.detach() > 0
        loss = hinge.mean() if self.reduction == "mean" else hinge.sum() / above_zero.sum().clamp(min=1)
        # A softplus is never quite 0; what is beyond the margin has no say in it either.
        return terms(loss, d.pull(), d.push(), contributes=violation.detach() > 0 if self.soft else above_zero)

    def normaliser(self, weights: Sequence[float]) -> float:
        """Return the number of layers: their weights act on the features."""
        return float(len(weights))
