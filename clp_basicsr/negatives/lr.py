"""The LR batch at the size of SR: the negative that is always there."""

from __future__ import annotations

import torch
from torch import Tensor

from clp_basicsr.images import resize_to
from clp_basicsr.negatives.base import Negative, Source, Step


def upsampled_lr(
    lr: Tensor, target: Tensor, *, align_corners: bool = False, invert_equal_pixels: bool = False
) -> Tensor:
    """Return the LR batch at the size of the ground truth.

    Args:
        lr: low-quality images ``(N, 3, h, w)``, values in [0, 1].
        target: ground truth ``(N, 3, H, W)``, values in [0, 1].
        align_corners: as in ``torch.nn.functional.interpolate``; True shifts the image and exists
            only to reproduce old results.
        invert_equal_pixels: replace values equal to the ground truth's by ``1 - target``; it kills
            the loss on images with borders and exists only to reproduce old results.

    Returns:
        New images ``(N, 3, H, W)`` in [0, 1]; the inputs are left as they are.
    """
    size = (target.shape[-2], target.shape[-1])
    negative = resize_to(lr, size, align_corners=align_corners)
    if invert_equal_pixels:
        negative = torch.where(negative == target, 1 - target, negative)
    return negative


class UpsampledLR(Source):
    """The network's own input, at the size of GT."""

    name = "lr"

    def __call__(self, step: Step) -> list[Negative]:
        """Return it."""
        return [Negative(step.upsampled_lr)]
