"""Patch embeddings as matrix products: where patches do not overlap, a convolution is one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_CHANNELS = 3
_SMALLEST = 8  # height and width in pixels; stems of 4, as ConvNeXt's and Swin's, do not show in a step's time


def multiply_patches(network: nn.Module) -> nn.Module:
    """Let the convolution of a frozen network that cuts images into patches be a matrix product; return the network.

    The same numbers but for rounding. A convolution takes long for the gradient at the images, which a training of its
    weights does not ask for: forward and back 8 ms where this takes 2, for two crops of 126 px, DINOv2-small and a CPU.
    And Inductor of torch 2.14 and later compiles the backward pass of this convolution for each size of image.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and _cuts_into_patches(module):
            module.__class__ = _Patches
    return network


def _cuts_into_patches(convolution: nn.Conv2d) -> bool:
    return (
        convolution.in_channels == _CHANNELS
        and convolution.kernel_size == convolution.stride
        and min(convolution.kernel_size) >= _SMALLEST
        and convolution.padding in ("valid", (0, 0))
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )


class _Patches(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        """Return maps ``(N, C, h, w)`` of images ``(N, 3, H, W)``; what does not fill a patch is dropped."""
        height, width = self.kernel_size
        rows, columns = images.shape[-2] // height, images.shape[-1] // width
        if images.shape[-2:] != (rows * height, columns * width):
            images = images[..., : rows * height, : columns * width]
        apart = images.reshape(images.shape[0], _CHANNELS, rows, height, columns, width)
        patches = apart.permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
