"""Distances between the features of two images at one layer, and how features are flattened.

Each distance returns several values per image: ``(..., N, T)`` with one term per channel
(``l1``, ``l2``) or per position (``cosine``). All are 0 and have a finite gradient where both
features are equal, and are in at least float32 whatever the features' precision is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from clp_basicsr.images import at_least_float32
from clp_basicsr.norms import l1_of_difference, l2_of_difference, norm

_SMALLEST_NORM = 1e-4


class Between(Protocol):
    """The distance of two feature maps; ``scale`` multiplies the features first."""

    def __call__(self, first: Tensor, second: Tensor, scale: float = 1.0, eps: float = 0.0) -> Tensor:
        """Return ``(..., N, T)`` for features ``(..., N, C, h, w)``."""
        ...


class Distance(NamedTuple):
    """A distance and the yardstick that belongs to it."""

    name: str
    between: Between
    size: Callable[[Tensor], Tensor]
    """The distance of features from "nothing there", ``(..., N, T)``: what a floor is measured in."""
    degree: float
    """A map of t times as many positions of the same kind has ``t ** degree`` times the distance."""
    order: int | None = None
    """Of the norm over positions, where it is one: 2 for the root of the sum of squares, 1 for the sum."""
    least_gap: float = 0.1
    """A gap below this share of the size of GT's features counts as that share."""

    def __repr__(self) -> str:
        """Show the name alone: a criterion is printed with its distance."""
        return self.name


def _positions(features: Tensor) -> Tensor:
    return features.flatten(-2)


def _unit(features: Tensor) -> Tensor:
    # sqrt(|x|^2 + eps^2): a position where a ReLU left nothing has a direction of length 0 and a
    # bounded gradient, where x / |x| has none.
    features = at_least_float32(features)
    length = features.square().sum(-3, keepdim=True).add(_SMALLEST_NORM**2).sqrt()
    return features / length


def _cosine(first: Tensor, second: Tensor, scale: float = 1.0, eps: float = 0.0) -> Tensor:
    # |u - v|^2 / 2 = 1 - cos for unit vectors, but exactly 0 for equal ones. A direction has no
    # scale, so the layer's weight multiplies the distance, as it does for l1 and l2 in effect.
    half_square = (_unit(first) - _unit(second)).square().sum(-3) / 2
    return _positions(half_square) * scale


def _cosine_size(features: Tensor) -> Tensor:
    return torch.ones_like(_positions(at_least_float32(features[..., 0, :, :])))


def _l2_size(features: Tensor) -> Tensor:
    return norm(features, 2)


def _l1_size(features: Tensor) -> Tensor:
    return norm(features, 1)


DISTANCES: dict[str, Distance] = {
    distance.name: distance
    for distance in (
        Distance("l2", l2_of_difference, _l2_size, 0.5, order=2),
        Distance("l1", l1_of_difference, _l1_size, 1.0, order=1),
        Distance("cosine", _cosine, _cosine_size, 0.0, least_gap=0.1**2 / 2),  # |u - v|^2 / 2 where |u - v| = 0.1
    )
}
