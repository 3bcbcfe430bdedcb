"""One call of the loss in three numbers, over all its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clp_basicsr.criteria import Terms


class Summary(NamedTuple):
    """The last call in three numbers: 0-dim, detached, still on the device."""

    pull: Tensor
    push: Tensor
    active: Tensor


def summary_of(layers: Sequence[Terms], weights: Sequence[float]) -> Summary:
    """Return the weighted means over layers; of ``active`` the share of all terms, of which layers have as many."""
    numbers = [terms.numbers for terms in layers]
    pull, push, _ = _weighted_mean(numbers, weights)
    _, _, active = _weighted_mean(numbers, [terms.total for terms in layers])
    return Summary(pull, push, active)


def _weighted_mean(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    shares = [weight / sum(weights) for weight in weights]
    mean = values[0] * shares[0]
    for value, share in zip(values[1:], shares[1:]):
        mean = torch.add(mean, value, alpha=share)
    return mean
