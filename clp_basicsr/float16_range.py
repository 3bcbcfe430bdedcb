"""Gradients on their way through a float16 network: at a size of which float16 has digits.

The gradient of a mean is as small as its terms are many, a loss weight makes it smaller still, and below 6e-8
float16 has only 0: at a weight of 5e-3 the gradient of a batch of eight was gone as a whole, in silence. Where a
host scales its losses (torch.amp.GradScaler), that scale neither helps nor harms in here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def kept_in_range(value_of: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return ``value_of(images)``, a 0-dim tensor, whose gradient runs through ``value_of`` times a scale.

    The scale is the number of values in ``images`` over what the host's backward pass arrives with; it is taken
    back where the gradient leaves for ``images``. There is no second derivative through it.
    """
    if torch.compiler.is_compiling():  # what arrives is not known in a graph: only the number of values counts
        left: Tensor = _Times.apply(images, 1 / images.numel())
        entered: Tensor = _Times.apply(value_of(left), images.numel())
        return entered
    arrived: list[Tensor] = []
    value: Tensor = _Enter.apply(value_of(_Leave.apply(images, arrived)), arrived, float(images.numel()))
    return value


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, arrived: list[Tensor], scale: float) -> Tensor:
        ctx.arrived, ctx.scale = arrived, scale
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.arrived[:] = [gradients[0] / ctx.scale]
        return torch.full_like(gradients[0], ctx.scale), None, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, arrived: list[Tensor]) -> Tensor:
        ctx.arrived = arrived
        return images.view_as(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.arrived[0], None


class _Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None
