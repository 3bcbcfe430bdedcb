"""Detail that SR has: how much, how much of it is right, and how much is not GT's."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)


def sharpness(sr: Tensor, target: Tensor) -> float:
    """Return the gradient energy of SR's luma over GT's: 1 at GT, below it where SR is blurred.

    Args:
        sr: images ``(N, 3, H, W)``.
        target: ground truth of the same shape.
    """
    return float(_gradient_energy(_luma(sr)) / _gradient_energy(_luma(target)))


def detail_and_artefact(sr: Tensor, target: Tensor, scale: int) -> tuple[float, float]:
    """Return SR's high band along GT's, and the rest, both in units of the size of GT's.

    The high band is what LR cannot show: luma less its Gaussian blur, half of which is left at LR's Nyquist
    frequency. Detail is 1 and artefact 0 at GT; both are 0 where SR has no high band; noise alone is artefact.

    Args:
        sr: images ``(N, 3, H, W)``.
        target: ground truth of the same shape.
        scale: GT's size over LR's.
    """
    own, right = (high_band(_luma(images), scale) for images in (sr, target))
    along = (own * right).sum() / right.square().sum()
    rest = own - along * right
    return float(along), float(rest.norm() / right.norm())


def _luma(images: Tensor) -> Tensor:
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=images.device).view(1, 3, 1, 1)
    return (images.double() * weights).sum(1, keepdim=True)


def _gradient_energy(luma: Tensor) -> Tensor:
    return luma.diff(dim=-1).square().mean() + luma.diff(dim=-2).square().mean()


def high_band(images: Tensor, scale: int) -> Tensor:
    """Return what LR cannot show of images ``(N, C, H, W)``: without their Gaussian blur.

    Args:
        images: images of any value range.
        scale: their size over LR's, at whose Nyquist frequency half is left of the blur.
    """
    sigma = scale * math.sqrt(2 * math.log(2)) / math.pi
    radius = math.ceil(4 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    planes = F.pad(images, [radius] * 4, mode="reflect").flatten(0, 1)[:, None]
    low = F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return images - low.view_as(images)
