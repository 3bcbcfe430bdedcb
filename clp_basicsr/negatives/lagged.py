"""What earlier states of the network being trained make of the LR batch."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clp_basicsr import arguments
from clp_basicsr.images import check_batch, check_tensor
from clp_basicsr.messages import reason, shown
from clp_basicsr.negatives.base import Negative, Source, Step
from clp_basicsr.negatives.network_copy import frozen_copy

if TYPE_CHECKING:
    from typing_extensions import Self


class LaggedNetwork(Source):
    """The output of a copy of the model's ``net_g`` that lags behind it.

    Every ``every`` iterations ``copy = decay * copy + (1 - decay) * net_g``, buffers included. It costs
    the memory of one more network and one pass of it without gradient. After a resume it starts from
    the network as it is then. Source: SPN / MCLIR (AAAI 2024), with intervals of 100 to 1000 and decay 0.1.
    """

    name = "lagged"
    varies = True
    needs_training = True
    resembles_sr = True  # a fresh copy of the network makes the same of LR

    def __init__(self, every: int = 500, decay: float = 0.0, start: int = 0) -> None:
        """Set the rhythm.

        Args:
            every: iterations between two refreshes.
            decay: share of the old copy that stays, in [0, 1).
            start: the iteration from which on there is a copy, and with it this negative.

        Raises:
            TypeError: if a value is of the wrong type.
            ValueError: if a value is out of range.
        """
        self.every = arguments.count("every", every)
        self.decay = arguments.number("decay", decay, zero_allowed=True)
        if self.decay >= 1:
            raise ValueError(f"Argument `decay` must be below 1, else the copy never changes, but got {shown(decay)}.")
        self.start = arguments.count("start", start, zero_allowed=True)
        self.network: nn.Module | None = None
        self.of: weakref.ref[nn.Module] | None = None
        self.refreshed = 0

    def __call__(self, step: Step) -> list[Negative]:
        """Return the copy's output, or nothing before ``start``.

        Raises:
            TypeError: if its ``net_g`` cannot be copied, cannot be called with the LR batch alone, or returns no dense
                floating point tensor.
            ValueError: if there is no model with a ``net_g``, or its output does not have GT's size.
        """
        current = _network_of(step.find_model(), self.name)
        iteration = step.find_iteration()
        if iteration < self.start:
            return []
        network = self._refreshed(current, iteration)
        try:
            output = network(step.given_lr)
        except TypeError as error:
            raise TypeError(
                f"The negative `{self.name}` calls a copy of `net_g` with the LR batch alone, which fails: "
                f"{reason(error)} It serves models that turn `lq` into SR directly."
            ) from error
        check_tensor("net_g(lq)", output)
        frames = output.flatten(0, 1) if output.dim() == 5 else output
        check_batch("net_g(lq)", frames)
        images = step.prepare(frames).clamp(0, 1)
        if images.shape != step.target.shape:
            raise ValueError(
                f"The negative `{self.name}` must have the shape of `target`, {tuple(step.target.shape)}, but the "
                f"network made {tuple(images.shape)} of the LR batch. It serves models that turn `lq` into SR directly."
            )
        return [Negative(images)]

    @torch.inference_mode(False)  # a copy that a validation makes must be updatable in training
    @torch.no_grad()
    def _refreshed(self, current: nn.Module, iteration: int) -> nn.Module:
        if self.network is None or self.of is None or self.of() is not current:
            self.network = self._copied(current)
            self.of = weakref.ref(current)
            self.refreshed = iteration
        elif iteration - self.refreshed >= self.every:
            for old, new in zip(_tensors(self.network), _tensors(current)):
                old.copy_(torch.lerp(new, old, self.decay) if old.is_floating_point() else new)
            self.refreshed = iteration
        return self.network

    def _copied(self, network: nn.Module) -> nn.Module:
        try:
            return frozen_copy(network)
        except TypeError as error:
            raise TypeError(f"The negative `{self.name}` needs a copy of `net_g`. {error}") from error

    def for_rehearsal(self) -> Self:
        """Return a copy without a `start`; see `Source`."""
        rehearsing = super().for_rehearsal()
        rehearsing.start = 0
        return rehearsing

    def __getstate__(self) -> dict[str, Any]:
        """Leave the copy out: it belongs to a run."""
        return {**self.__dict__, "network": None, "of": None}


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _network_of(model: Any | None, source: str) -> nn.Module:
    network = getattr(model, "net_g", None)
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"The negative `{source}` needs the model that trains a network `net_g`, but the loss is "
            + ("bound to no model" if model is None else f"bound to a {type(model).__name__} without one")
            + ". Bind it once: loss.bind(model). In BasicSR this happens by itself."
        )
    while True:
        if isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):  # what torch.compile puts around it
            network = inner
        else:
            return network
