"""Criteria: what the distances between SR, GT and negatives are turned into, layer by layer.

Shapes: ``anchor`` (SR) and ``positive`` (GT) are features ``(N, C, h, w)`` of one layer,
``negatives`` are ``(K, N, C, h, w)`` for K negatives per image. Only ``anchor`` carries gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from clp_basicsr.arguments import number, yaml_hint
from clp_basicsr.distances import Distance
from clp_basicsr.messages import not_a_choice

_TORCH_EPS = 1e-6  # torch.nn.TripletMarginLoss's default `eps`


class Terms(NamedTuple):
    """What one layer says; all are 0-dim, and all but ``loss`` are detached."""

    loss: Tensor
    pull: Tensor
    """Distance SR-GT in units of the gap GT-negative: 1 at the negative, 0 at GT."""
    push: Tensor
    """How much nearer SR is to the negative than GT is, in the same units: 1 there, 0 at GT."""
    active: Tensor
    """Share of the terms that contribute to the loss, in [0, 1]."""
    total: int
    """How many terms there are."""


class Criterion(Protocol):
    """One layer's features to its terms, and how the layers add up."""

    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the terms of a layer; ``terms.loss`` already holds the layer's ``weight``."""
        ...

    def normaliser(self, weights: Sequence[float]) -> float:
        """Return what the sum of the layers' losses is divided by."""
        ...


class _Distances(NamedTuple):
    """A = d(sr, gt) ``(N, T)``; N = d(sr, negative), P = d(gt, negative), P + floor ``(K, N, T)``."""

    to_positive: Tensor
    to_negatives: Tensor
    gap: Tensor
    unit: Tensor


def _distances(
    anchor: Tensor, positive: Tensor, negatives: Tensor, distance: Distance, scale: float, eps: float
) -> _Distances:
    with torch.no_grad():
        gap = distance.between(positive, negatives, scale)
        # The feature-size part keeps flat crops and pairs with LR == GT (a gap of 0) at ordinary
        # size; it is taken per image, so that a batch is the mean of its images.
        size = distance.size(positive).mean(-1, keepdim=True) * scale
        unit = gap + 0.05 * gap.mean(-1, keepdim=True) + 0.01 * size + 1e-6
    return _Distances(
        to_positive=distance.between(anchor, positive, scale, eps),
        to_negatives=distance.between(anchor, negatives, scale, eps),
        gap=gap,
        unit=unit,
    )


def _terms(loss: Tensor, pull: Tensor, push: Tensor, contributes: Tensor) -> Terms:
    return Terms(
        loss=loss,
        pull=pull.detach().mean(),
        push=push.detach().mean(),
        active=contributes.to(pull.dtype).mean(),
        total=contributes.numel(),
    )


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
        d = _distances(anchor, positive, negatives, self.distance, scale=1.0, eps=0.0)
        pull = d.to_positive / d.unit
        push = torch.relu(d.gap - d.to_negatives) / d.unit
        value = pull + self.push_weight * push
        return _terms(weight * value.mean(), pull, push, contributes=value.detach() > 0)

    def normaliser(self, weights: Sequence[float]) -> float:
        """Return the sum of the weights: the loss is their weighted mean."""
        return sum(weights)


@dataclass(frozen=True)
class FixedMarginTriplet:
    """``relu(A - N + margin)`` on features times their layer weight, as the original loss.

    Matches ``torch.nn.TripletMarginLoss(margin)(w f(sr), w f(gt), w f(lr))`` on features flattened
    from dim 2 (for ``l2``; ``p=1`` for ``l1``), then the plain mean over layers.
    """

    distance: Distance
    margin: float

    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the layer's terms; see `Criterion`."""
        d = _distances(anchor, positive, negatives, self.distance, scale=weight, eps=_TORCH_EPS)
        hinge = torch.relu(d.to_positive - d.to_negatives + self.margin)
        return _terms(
            hinge.mean(),
            pull=d.to_positive / d.unit,
            push=torch.relu(d.gap - d.to_negatives) / d.unit,
            contributes=hinge.detach() > 0,
        )

    def normaliser(self, weights: Sequence[float]) -> float:
        """Return the number of layers: their weights act on the features."""
        return float(len(weights))


def _triplet(distance: Distance, margin: object, push_weight: object) -> Criterion:
    push = number("push_weight", push_weight, zero_allowed=True)
    if isinstance(margin, str):
        if margin != "relative":
            advice = yaml_hint(margin)
            raise ValueError(not_a_choice("margin", margin, ["relative"], " or a number > 0") + advice)
        return RelativeTriplet(distance, push)
    if push != 1.0:
        raise ValueError(
            f"Argument `push_weight` must be left out with a fixed margin, but got {push_weight!r} "
            f"with margin {margin!r}; it belongs to margin='relative'."
        )
    return FixedMarginTriplet(distance, number("margin", margin))


CRITERIA: dict[str, Callable[[Distance, object, object], Criterion]] = {
    "triplet": _triplet,
}
