"""A push that counts only along the missing detail."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from clp_basicsr.criteria.base import Criterion, Distances, Terms, terms
from clp_basicsr.distances import DISTANCES, Distance
from clp_basicsr.images import at_least_float32


@dataclass(frozen=True)
class Directional(Criterion):
    """``w (A + push_weight relu(1 - q) P) / (P + floor)``, q the way from the negative to GT.

    ``q = <f(sr)-f(neg), f(gt)-f(neg)> / |f(gt)-f(neg)|^2`` per image and channel: 0 at the negative,
    1 at GT; a P that divides is no smaller than the floor. A push in every direction rewards noise; this one
    rewards movement along the detail that the negative lacks.
    """

    push_weight: float = 1.0
    distance: Distance = field(default=DISTANCES["l2"], init=False, repr=False)

    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the layer's terms; see `Criterion`."""
        d = self.measured(anchor, positive, negatives, weight)
        anchor, positive, negatives = (at_least_float32(each) for each in (anchor, positive, negatives))
        # (1 - q) P = <gt - sr, detail> / P: no difference of large numbers.
        detail = (positive - negatives).flatten(-2)
        missing = ((positive - anchor).flatten(-2) * detail).sum(-1) / at_least_the_floor(d)
        pull, push = d.pull(), torch.relu(missing) / d.unit
        value = torch.add(pull, push, alpha=self.push_weight)
        return terms(weight * value.mean(), pull, push, contributes=value.detach() > 0)


def at_least_the_floor(d: Distances) -> Tensor:
    """Return the gap as what divides: the direction of a gap below the floor is noise, and must fade with it."""
    return torch.maximum(d.gap, d.unit - d.gap)
