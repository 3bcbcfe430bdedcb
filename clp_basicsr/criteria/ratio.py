"""Ratios A / N: SR's distance to GT over its distance to the negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clp_basicsr.criteria.base import Criterion, Distances, Terms, terms
from clp_basicsr.distances import Distance


@dataclass(frozen=True)
class Ratio(Criterion):
    """``w A / (mean_k N_k + floor (P + e))`` per image, means over channels, the weighted mean over layers.

    ``floor`` is a share of the gap P and of the floor ``e`` that all criteria put under it. Without it the gradient
    explodes where SR is close to the negative (37,000 times plain L2's near the bicubic image; 17 times with 0.1).
    """

    distance: Distance
    floor: float = 0.1

    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the layer's terms; see `Criterion`."""
        d = self.measured(anchor, positive, negatives, weight)
        to_negatives = d.to_negatives.mean((0, 2)) + self.floor * d.unit.mean((0, 2))
        value = d.to_positive.mean(1) / to_negatives
        return _ratio_terms(weight * value.mean(), d)


@dataclass(frozen=True)
class BatchRatio(Criterion):
    """``w mean|f(sr) - f(gt)| / (sum_k v_k mean|f(sr) - f(negative_k)| + 1e-7)``, means over the whole batch.

    As published: AECR-Net models/CR.py (one negative), CSD loss/contrast_loss.py (``sum`` over K),
    C2PNet C2R.py (K weights ``v_k``, used over their sum; its curriculum has 6 for the input, 0.75 or 1.25 for
    each other method's output). The layers are summed. Not the mean over images: two processes
    with half a batch each give another gradient than one with the whole.
    """

    distance: Distance
    over_negatives: str | tuple[float, ...] = "mean"

    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the layer's terms; see `Criterion`."""
        d = self.measured(anchor, positive, negatives, weight)
        to_negatives = d.to_negatives.mean((1, 2))
        return _ratio_terms(weight * d.to_positive.mean() / (self._pooled(to_negatives) + 1e-7), d)

    @property
    def is_mean_over_images(self) -> bool:
        """False: it is a quotient of means over the batch."""
        return False

    def way_of_measuring(self, weight: float, positions: int) -> tuple[float, float]:
        """Return what makes a mean over positions of the distance; for ``l2`` the root of the mean square."""
        return float(positions**-self.distance.degree), 0.0

    @property
    def weighs_negatives(self) -> bool:
        """Whether ``over_negatives`` are weights."""
        return isinstance(self.over_negatives, tuple)

    def without_negatives(self, before: int, after: int) -> BatchRatio:
        """Return it with the first and the last weights alone; see `Criterion`."""
        if not isinstance(self.over_negatives, tuple):
            return self
        kept = self.over_negatives[:before] + self.over_negatives[len(self.over_negatives) - after :]
        return replace(self, over_negatives=kept if any(kept) else "mean")

    def normaliser(self, weights: Sequence[float]) -> float:
        """Return 1: the papers sum over layers."""
        return 1.0

    def _pooled(self, to_negatives: Tensor) -> Tensor:
        if self.over_negatives == "sum":
            return to_negatives.sum()
        if self.over_negatives == "mean":
            return to_negatives.mean()
        if len(self.over_negatives) != len(to_negatives):
            raise ValueError(
                f"Argument `over_negatives` must hold one weight for each of the {len(to_negatives)} negatives, but "
                f"got {len(self.over_negatives)}."
            )
        shares = [float(each) / sum(map(float, self.over_negatives)) for each in self.over_negatives]
        return sum((share * each for share, each in zip(shares, to_negatives)), start=to_negatives.new_zeros(()))


def _ratio_terms(loss: Tensor, d: Distances) -> Terms:
    return terms(loss, d.pull(), d.push(), contributes=torch.broadcast_to(d.to_positive.detach() > 0, d.gap.shape))
