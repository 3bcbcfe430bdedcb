"""A weight that keeps the loss's gradient at a share of the pixel loss's.

The field's most frequent complaint is a contrastive term far larger than L1: the two have different
units, and how different depends on the network, its layers, the crop and the batch.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from clp_basicsr.gradients import squared_norms

EVERY = 100
_FIRST = 10  # measured in every one of these calls, since the mean has nothing to stand on yet

State = dict[str, Any]
"""``weight``, the mean so far, and ``count``, of how many finite ones; how many ``measurements`` were, and
in which ``iteration`` the last."""


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
        self.states: dict[str, State] = {}

    def weight(self, key: str, iteration: int, value: Tensor, sr: Tensor, target: Tensor, model: Any | None) -> Tensor:
        """Return the weight for this call, 0-dim, detached, on the device of ``value``.

        Args:
            key: whose weight it is, among all that are stored in one training state.
            iteration: of the training, from 1 on.
            value: the loss at weight 1, with its graph.
            sr: the images that ``value`` was computed from.
            target: GT of the same shape.
            model: the host's model; its ``cri_pix`` is the pixel loss, L1 where there is none.
        """
        states = _saved_with(model, self.states)
        if sr.requires_grad and torch.is_grad_enabled():
            if key not in states:
                states[key] = _nothing_yet(value.device)
            state = states[key]
            if _is_due(state, iteration):
                squares = squared_norms(value, sr, target, model)
                _include(state, (self.share * _pixel_over_own(squares)).clamp(max=self.cap), iteration)
        if key not in states:
            # Filled there: a number that is brought over from the CPU would make the GPU wait.
            return value.detach().new_full((), self.cap)
        # A resume may have read it to the CPU; once there, it stays on the loss's device.
        states[key]["weight"] = weight = states[key]["weight"].to(value.device)
        return cast(Tensor, weight)


def _nothing_yet(device: torch.device) -> State:
    weight, count = (torch.zeros((), dtype=torch.float32, device=device) for _ in range(2))
    return {"weight": weight, "count": count, "measurements": 0, "iteration": 0}


def _is_due(state: State, iteration: int) -> bool:
    return state["measurements"] < _FIRST or not 0 <= iteration - state["iteration"] < EVERY


def _include(state: State, wanted: Tensor, iteration: int) -> None:
    """Take a measurement into the mean, which is even over the first `_FIRST` and then forgets slowly."""
    weight, count = (state[name].to(wanted.device) for name in ("weight", "count"))
    # A batch that went wrong (NaN in an image, an overflow in the network) must not decide all later ones.
    count = count + wanted.isfinite()
    mean = torch.lerp(weight, wanted, 1 / count.clamp(min=1, max=_FIRST))
    state |= {
        "weight": torch.where(wanted.isfinite(), mean, weight),
        "count": count,
        "measurements": state["measurements"] + 1,
        "iteration": iteration,
    }


def _pixel_over_own(squares: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(squares)  # every process must go on with the same weight
    return (squares[0] / squares[1].clamp(min=torch.finfo(squares.dtype).tiny)).sqrt()


def _saved_with(model: Any | None, otherwise: dict[str, State]) -> MutableMapping[str, State]:
    """Return a mapping that a resume restores: part of a scheduler, which BasicSR saves attribute by attribute."""
    schedulers = getattr(model, "schedulers", None)
    if not schedulers:
        return otherwise
    saved: dict[str, State] = vars(schedulers[0]).setdefault("clp_balance", {})
    return saved
