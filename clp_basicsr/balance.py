"""A weight that keeps the loss's gradient at a share of the pixel loss's.

The field's most frequent complaint is a contrastive term far larger than L1: the two have different
units, and how different depends on the network, its layers, the crop and the batch.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clp_basicsr.clock import Clock
from clp_basicsr.gradients import squared_norms

EVERY = 100
_DECAY = 0.9
_FIRST = 10  # measured in every one of these, since the mean has nothing to stand on yet


class Balance:
    """Measures both gradients at the SR image every `EVERY` iterations and averages what the weight should be."""

    def __init__(self, share: float, cap: float) -> None:
        """Aim at a share.

        Args:
            share: the loss's gradient norm over the pixel loss's, at the SR image.
            cap: the largest weight.
        """
        self.share = share
        self.cap = cap
        self.clock = Clock()
        self.weights: dict[str, Tensor] = {}
        self.measured: int | None = None

    def weight(self, key: str, value: Tensor, sr: Tensor, target: Tensor, model: Any | None) -> Tensor:
        """Return the weight for this call, 0-dim, detached, on the device of ``value``.

        Args:
            key: whose weight it is, among all that are stored in one training state.
            value: the loss at weight 1, with its graph.
            sr: the images that ``value`` was computed from.
            target: GT of the same shape.
            model: the host's model; its ``cri_pix`` is the pixel loss, L1 where there is none.
        """
        weights = _saved_with(model, self.weights)
        if key in weights:
            weights[key] = weights[key].to(value.device)
        differentiable = sr.requires_grad and torch.is_grad_enabled()
        if differentiable and self._is_due(model, known=key in weights):
            wanted = self.share * _pixel_over_own(squared_norms(value, sr, target, model))
            before = weights.get(key, wanted)
            mean = torch.lerp(wanted, before, _DECAY).clamp(max=self.cap)
            # A batch that went wrong (NaN in an image, an overflow in the network) must not decide all later ones.
            weights[key] = torch.where(mean.isnan(), torch.nan_to_num(before, nan=0.0), mean)
        # Filled there: a number that is brought over from the CPU would make it wait.
        return weights[key] if key in weights else value.detach().new_full((), self.cap)

    def _is_due(self, model: Any | None, known: bool) -> bool:
        iteration = self.clock.read(model)
        due = not known or self.measured is None or iteration <= _FIRST or iteration - self.measured >= EVERY
        if due:
            self.measured = iteration
        return due


def _pixel_over_own(squares: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(squares)  # every process must go on with the same weight
    return (squares[0] / squares[1].clamp(min=torch.finfo(squares.dtype).tiny)).sqrt()


def _saved_with(model: Any | None, otherwise: dict[str, Tensor]) -> MutableMapping[str, Tensor]:
    """Return a mapping that a resume restores: part of a scheduler, which BasicSR saves attribute by attribute."""
    schedulers = getattr(model, "schedulers", None)
    if not schedulers:
        return otherwise
    saved: dict[str, Tensor] = vars(schedulers[0]).setdefault("clp_weights", {})
    return saved
