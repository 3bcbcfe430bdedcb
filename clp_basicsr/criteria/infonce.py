"""InfoNCE: GT against the negatives, as a classification by cosine similarity."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from clp_basicsr.criteria.base import Criterion, Terms, terms
from clp_basicsr.distances import DISTANCES, Distance


@dataclass(frozen=True)
class InfoNCE(Criterion):
    """``-log(e^{s_p/t} / (e^{s_p/t} + sum_k e^{s_k/t}))``, s the channel cosine averaged over positions.

    ``capped``: ``s_k`` counts no less than GT's own similarity ``c_k`` to that negative, and the value
    at GT, ``log(1 + sum_k e^{(c_k-1)/t})``, is subtracted: 0 means GT. Without the cap SR runs away
    from GT, since being unlike the negative pays without end. Uncapped with t=1 it is PCL-SR's
    (src/loss/cl.py), with t=0.07 CUT's.
    """

    temperature: float = 0.07
    capped: bool = True
    distance: Distance = field(default=DISTANCES["cosine"], init=False, repr=False)

    def __call__(self, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> Terms:
        """Return the layer's terms; see `Criterion`."""
        d = self.measured(anchor, positive, negatives, weight)
        # 1 - s: differences of similarities are differences of distances, and those are exact near 0.
        to_positive = d.to_positive.mean(-1)
        to_negatives, gap = d.to_negatives.mean(-1), d.gap.mean(-1)
        if self.capped:
            to_negatives = torch.minimum(to_negatives, gap)
        value = _log_of_one_and((to_positive - to_negatives) / self.temperature)
        if self.capped:
            value = value - _log_of_one_and(-gap / self.temperature)
        contributes = torch.broadcast_to(d.to_positive.detach() > 0, d.gap.shape)
        return terms(weight * value.mean(), d.pull(), d.push(), contributes)


def _log_of_one_and(exponents: Tensor) -> Tensor:
    """Return ``log(1 + sum_k e^x_k)`` of exponents ``(K, N)``."""
    return torch.logsumexp(torch.cat((torch.zeros_like(exponents[:1]), exponents)), dim=0)
