"""A convolution with its bias and ReLU by one kernel of cuDNN's.

PyTorch adds the bias, and applies the ReLU, each in a pass of its own over the map: on an H100 a third of the time of
VGG19 in bfloat16. cuDNN's ReLU makes 0 of NaN, which PyTorch's does not: see `with_nans_of`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clp_basicsr.gpu.capability import is_nvidias
from clp_basicsr.messages import reason, warn

_DTYPES = (torch.float32, torch.bfloat16)  # in float16 maps can overflow, and the NaN that comes of it must stay
_REFUSED: set[torch.device] = set()
_MOST = 2**31  # entries of a map: beyond, PyTorch cuts the batch for cuDNN, but not for this function of it


def can_join(images: Tensor, channels: int) -> bool:
    """Say whether `convolution_and_relu` can do it, and is known to be faster.

    Args:
        images: ``(N, 3, H, W)``.
        channels: of the largest map on the way, which has a position for each pixel.
    """
    if not images.is_cuda or torch.compiler.is_compiling():  # Inductor joins bias and ReLU itself
        return False
    known = (
        torch.backends.cudnn.enabled
        and hasattr(torch, "cudnn_convolution_relu")
        and is_nvidias(images.device)
        and images.device not in _REFUSED
    )
    return known and _dtype(images) in _DTYPES and images[:, 0].numel() * channels < _MOST


def with_nans_of(images: Tensor, maps: Tensor) -> Tensor:
    """Return ``maps`` ``(N, C, h, w)``, and NaN for images that are not finite: a training that diverges shows it."""
    nothing_or_nan = (images.detach() * 0).sum((1, 2, 3), keepdim=True)
    return maps + nothing_or_nan.to(maps.dtype)


def convolution_and_relu(images: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Return ``relu(convolution(images))``, under autocast in its precision.

    Args:
        images: ``(N, C, h, w)``.
        convolution: frozen, with a bias, and zeros where it pads.
    """
    try:
        return _result(images, convolution)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # cuDNN has no such kernel for this GPU, or for maps of these sizes
        _REFUSED.add(images.device)
        warn(
            f"cuDNN cannot join a convolution with its ReLU on {images.device}: {reason(error)} PyTorch's own "
            "functions take over: the same values, in more time."
        )
    return _result(images, convolution)


def _result(images: Tensor, convolution: nn.Conv2d) -> Tensor:
    if images.device in _REFUSED:
        plain: Tensor = convolution(images).relu()
        return plain
    dtype = _dtype(images)
    assert convolution.bias is not None
    images, weight, bias = (each.to(dtype) for each in (images, convolution.weight, convolution.bias))
    geometry = convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    if not torch.is_grad_enabled():  # the same in fewer steps of Python
        return _joined(images, weight, bias, geometry)
    result: Tensor = _ConvolutionAndReLU.apply(images, weight, bias, geometry)
    return result


def _dtype(images: Tensor) -> torch.dtype:
    kind = images.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype


def _joined(images: Tensor, weight: Tensor, bias: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    stride, padding, dilation, groups = geometry
    return torch.cudnn_convolution_relu(images, weight, bias, stride, padding, dilation, groups)


class _ConvolutionAndReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, geometry: tuple[Any, ...]) -> Tensor:
        result = _joined(images, weight, bias, geometry)
        ctx.save_for_backward(images, weight, result)
        ctx.geometry = geometry
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, result = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        of_map = torch.ops.aten.threshold_backward(gradients[0], result, 0)
        geometry = stride, padding, dilation, False, (0, 0), groups
        of_images, _, _ = torch.ops.aten.convolution_backward(
            of_map, images, weight, None, *geometry, (True, False, False)
        )
        return of_images, None, None, None
