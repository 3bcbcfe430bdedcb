"""Where in the image a layer's distances, pull and push come from.

A criterion says one number per layer; here the same number is split over the positions of the
feature map, exactly: put together again, the maps give what the loss used and what the log says.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clp_basicsr.criteria import Criterion
from clp_basicsr.criteria.base import Distances
from clp_basicsr.criteria.directional import Directional, at_least_the_floor
from clp_basicsr.distances import Distance


class LayerMaps(NamedTuple):
    """Maps ``(N, h, w)`` of one layer; over K negatives they are means."""

    to_target: Tensor
    """d(sr, gt) in the units of the criterion's distance: what it would be if all positions were like this one.

    For ``l2`` the root of ``h w`` times the mean over channels of the squared difference, so that the root mean
    square over positions is that of the distances over channels; for ``l1`` ``h w`` times the mean over channels
    of the absolute difference; for ``cosine``, which has no sum over positions, the distance there. For the last
    two the mean over positions is the mean of the distances.
    """
    to_negative: Tensor
    """d(sr, negative), as ``to_target``; for ``l2`` over K negatives the root of the mean of the squares."""
    pull: Tensor
    """Parts of ``pull``: the mean over positions is `Terms.pull`, the number that is logged."""
    push: Tensor
    """Parts of ``push``: the mean over positions is `Terms.push`. Below 0 where SR is further away than GT is."""


@torch.no_grad()
def layer_maps(criterion: Criterion, anchor: Tensor, positive: Tensor, negatives: Tensor, weight: float) -> LayerMaps:
    """Split what ``criterion`` measures over positions.

    ``l2`` per channel is ``A = sqrt(sum a^2)``, so a position's part of A is ``a^2 / A``, and of ``P - N`` it is
    ``(p^2 - n^2) / (P + N)``: nothing where SR is as far from the negative as GT is. ``l1`` is a sum itself.

    Args:
        criterion: any out of `clp_basicsr.criteria`.
        anchor: SR's features ``(N, C, h, w)``.
        positive: GT's features of the same shape.
        negatives: features ``(K, N, C, h, w)`` of K negatives.
        weight: the layer's weight; it scales the features where the criterion scales them.
    """
    distance, (scale, eps) = criterion.distance, criterion.way_of_measuring(weight, anchor.shape[-2:].numel())
    d = criterion.measured(anchor, positive, negatives, weight)
    if distance.order is None:
        return _cosine_maps(d, anchor.shape[-2:])
    squared = distance.order == 2

    def parts(first: Tensor, second: Tensor, eps: float = 0.0) -> Tensor:
        difference = (first - second) * scale + eps
        return difference.square() if squared else difference.abs()

    to_target, to_negative = parts(anchor, positive, eps)[None], parts(anchor, negatives, eps)
    gap = parts(positive, negatives)
    positions = anchor.shape[-2:].numel()
    share = positions / d.unit[:, 0].numel() / d.unit
    pull = _summed(to_target, _over(share, d.to_positive) if squared else share)
    if isinstance(criterion, Directional):
        push = _directional_push(anchor, positive, negatives, d, share)
    else:
        closer = share * (d.gap > d.to_negatives)
        factor = _over(closer, d.gap + d.to_negatives) if squared else closer
        push = _summed(gap - to_negative, factor)
    distances = [each.mean((0, 2)) * positions for each in (to_target, to_negative)]
    first, second = (each.sqrt() if squared else each for each in distances)
    return LayerMaps(first, second, pull, push)


def map_value(values: Tensor, distance: Distance) -> float:
    """Return the distance that a map of distances ``(N, h, w)`` stands for; see `LayerMaps`."""
    return float(values.square().mean().sqrt() if distance.order == 2 else values.mean())


def _cosine_maps(d: Distances, size: torch.Size) -> LayerMaps:
    maps = (d.to_positive, d.to_negatives.mean(0), d.pull().mean(0), d.push().mean(0))
    return LayerMaps(*(each.reshape(-1, *size) for each in maps))


def _directional_push(anchor: Tensor, positive: Tensor, negatives: Tensor, d: Distances, share: Tensor) -> Tensor:
    missing = (positive - anchor) * (positive - negatives)
    return _summed(missing, share * (missing.sum((-2, -1)) > 0) / at_least_the_floor(d))


def _summed(parts: Tensor, factors: Tensor) -> Tensor:
    """Return the sum over negatives and channels of parts ``(K or 1, N, C, h, w)`` times factors ``(K, N, C)``."""
    if parts.shape[0] == 1:
        factors = factors.sum(0, keepdim=True)
    return torch.einsum("knchw,knc->nhw", parts, factors)


def _over(numerator: Tensor, distance: Tensor) -> Tensor:
    """Return the quotient, and 0 where there is no distance to split."""
    return torch.where(distance > 0, numerator / distance, 0)
