"""Gradients on their way through a float16 network: at a size of which float16 has digits, image by image.

The gradient of a mean is as small as its terms are many, and a loss weight makes it smaller still: below 6e-8 float16
has only 0, and at a weight of 5e-3 the gradient of a batch of eight was gone as a whole, in silence. One image's can be
many times another's (a flat crop's in the criterion `ratio`), and above 65504 there is only infinity. So no one scale
fits a batch. What a host scales its losses by (torch.amp.GradScaler) neither helps nor harms in here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LARGEST = 2.0**-4
"""What the largest gradient of an image at its feature maps is brought to.

Inside EfficientNet-Lite0 it grows to 1000 times that, inside DINOv2 to 30 times; float16 ends at 2^16 and has all its
digits down to 2^-14.
"""


_SMALLEST = 1e-30  # the quotient with the smallest numbers of float32 would be infinite


def features_in_range(run: Callable[[Tensor], dict[str, Tensor]], images: Tensor) -> dict[str, Tensor]:
    """Return ``run(images)``, maps by layer, in float32; their gradient runs through ``run`` times a scale per image.

    No image may have a part in another's maps. There is no second derivative.
    """
    entering, scales = _UnscaleGradient.apply(images)
    maps = run(entering)
    widened = _ScaleGradient.apply(scales, *maps.values())
    return dict(zip(maps, widened))


class _UnscaleGradient(torch.autograd.Function):
    """Before the network: takes back the scales, which arrive as if they were the gradient of its second output."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.view_as(images), images.new_zeros(len(images), 1, 1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *arriving: Tensor) -> Tensor:
        gradient, scales = arriving
        return gradient / scales


class _ScaleGradient(torch.autograd.Function):
    """Behind the network: brings each image's gradient to a size of which float16 has digits."""

    @staticmethod
    def forward(ctx: Any, scales: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.dtypes = [each.dtype for each in maps]
        return tuple(each.float() for each in maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        largest = torch.stack([each.abs().amax((1, 2, 3)) for each in gradients]).amax(0)
        usable = (largest > 0) & largest.isfinite()
        scales = torch.where(usable, _LARGEST / largest.clamp(min=_SMALLEST), 1.0).view(-1, 1, 1, 1)
        return scales, *((each * scales).to(dtype) for each, dtype in zip(gradients, ctx.dtypes))
