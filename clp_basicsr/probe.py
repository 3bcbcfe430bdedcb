"""When a loss is measured, and the gradient that only the host's backward pass brings."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from clp_basicsr.criteria.base import Terms
from clp_basicsr.diagnostics import Diagnostics, layer_numbers, layer_sums
from clp_basicsr.gradients import squared_norm_of_pixel_loss

EVERY = 10
"""Iterations from one measurement of the layers to the next."""
GRADIENT_EVERY = 100
"""Calls from one measurement of the gradient to the next."""


class Probe:
    """Measures a loss at some of its calls."""

    def __init__(self) -> None:
        """Begin with the first call."""
        self.calls = 0
        self.measured: tuple[int, int | None] = (0, None)
        self.sums: dict[str, Tensor] = {}
        self.range: Tensor | None = None
        self.gradient_ratios: deque[Tensor] = deque(maxlen=3)  # at weight 1: warm-up and `auto_weight` change it

    def begin(self, target: Tensor, iteration: int | None = None) -> bool:
        """Count a call and return whether its layers are to be measured.

        Args:
            target: GT as the network gets it.
            iteration: of the training; None where nobody knows it, then calls count.
        """
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return False  # a count would mean a compilation for every call; a validation is no part of the training
        self.calls += 1
        if not self._is_due(iteration):
            return False
        self.measured = self.calls, iteration
        self.sums = {}
        self.range = torch.stack(target.detach().float().aminmax())
        return True

    def _is_due(self, iteration: int | None) -> bool:
        """Take the first call, and those that hosts log: of every 50th or 100th iteration."""
        last_call, last_iteration = self.measured
        if iteration is None:
            return self.calls == 1 or self.calls % EVERY == 0
        stands_still = self.calls - last_call >= 2 * EVERY  # the model's schedulers count epochs
        return self.calls == 1 or stands_still or (iteration % EVERY == 0 and iteration != last_iteration)

    def add_layer(
        self, name: str, anchor: Tensor, positive: Tensor, negatives: Tensor, terms: Terms, share: float = 1.0
    ) -> None:
        """Measure a layer, of which these images are a ``share``."""
        sums = layer_sums(anchor, positive, negatives, terms, share)
        self.sums[name] = self.sums[name] + sums if name in self.sums else sums

    def gradient_is_due(self, sr: Tensor) -> bool:
        """Say whether `watch_gradient` is wanted for the call that comes next."""
        if torch.compiler.is_compiling() or not (sr.requires_grad and torch.is_grad_enabled()):
            return False
        return self.calls % GRADIENT_EVERY == 0

    def watch_gradient(
        self, loss: Tensor, weight: float | Tensor, sr: Tensor, target: Tensor, model: Any | None
    ) -> None:
        """Measure the gradient of ``loss`` at the SR image when the host's backward pass comes by.

        A backward pass of our own would hold all activations meanwhile, and set the peak of a training's memory.

        Args:
            loss: what the call returns.
            weight: what it is multiplied by in it.
            sr: the SR images, as a tensor that nothing but this loss is computed from.
            target: GT of the same shape.
            model: the host's model, None outside a host.
        """
        pixel = squared_norm_of_pixel_loss(sr, target, model)
        arriving: list[Tensor] = []  # what the host multiplies its losses by: a scale for float16, 1 / accumulate

        def note(gradient: Tensor) -> None:
            if not arriving:  # a second derivative reaches `sr` without passing `loss`
                return
            own = gradient.detach().float().square().sum().sqrt() / (arriving.pop().detach().abs() * weight)
            ratio = own / pixel.sqrt().clamp(min=torch.finfo(pixel.dtype).tiny)
            # A step that overflows in float16, which the host leaves out, says nothing.
            self.gradient_ratios.append(torch.where(ratio.isfinite(), ratio, torch.nan))

        loss.register_hook(arriving.append)  # type: ignore[no-untyped-call]
        sr.register_hook(note)  # type: ignore[no-untyped-call]

    def latest(self, weight: float | Tensor) -> Diagnostics | None:
        """Return what was measured last, None before the first call; the gradient is that at the weight of now."""
        if self.range is None or not self.sums:
            return None
        nan = self.range.new_tensor(float("nan"))
        ratio = torch.stack((*self.gradient_ratios,)).nanmedian() if self.gradient_ratios else nan
        layers = {name: layer_numbers(sums) for name, sums in self.sums.items()}
        return Diagnostics(layers, torch.stack((ratio.to(self.range) * weight, *self.range)))
