"""Images: what is accepted, and how they are brought to the form a network wants.

Everything here looks at shapes, types and devices only, never at values: looking at values would
make the CPU wait for the GPU in every iteration.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""What images may be; there is no arithmetic on floats of 8 bits."""


def check_images(sr: Tensor, target: Tensor, lr: Tensor) -> None:
    """Check the three image batches against each other.

    Args:
        sr: super-resolved images ``(N, C, H, W)``, C of 1 or 3.
        target: ground truth of the same shape.
        lr: low-quality input ``(N, C, h, w)``, ``h <= H`` and ``w <= W``.

    Raises:
        TypeError: if one is not a floating point tensor.
        ValueError: if shapes, channels or devices do not fit.
    """
    for name, images in (("sr", sr), ("target", target), ("lr", lr)):
        check_batch(name, images)
    if sr.shape != target.shape:
        raise ValueError(
            f"Images `sr` and `target` must have the same shape, but got {_shape(sr)} and {_shape(target)}."
        )
    if lr.shape[0] != sr.shape[0]:
        raise ValueError(
            f"Images `lr` and `sr` must have the same batch size, but got {lr.shape[0]} and {sr.shape[0]}."
        )
    if lr.shape[-2] > sr.shape[-2] or lr.shape[-1] > sr.shape[-1]:
        raise ValueError(
            f"Images `lr` must not be larger than `sr`, but got {_shape(lr)} and {_shape(sr)}. "
            "The order is loss(sr, target, lr)."
        )
    for name, images in (("target", target), ("lr", lr)):
        if images.device != sr.device:
            raise ValueError(
                f"Images `{name}` and `sr` must be on the same device, but got {images.device} and {sr.device}."
            )


def check_tensor(name: str, images: object) -> None:
    """Check what needs no shape: whether it is a tensor that can hold images.

    Raises:
        TypeError: if it is no dense floating point tensor.
        ValueError: if it is empty.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"Images `{name}` must be a torch.Tensor, but got {type(images).__name__}.")
    if images.dtype not in DTYPES:
        cure = (
            f"Convert them: {name}.float()" if images.is_floating_point() else f"For 8-bit images: {name}.float() / 255"
        )
        raise TypeError(
            f"Images `{name}` must be floating point (16 bits or more) with values in [0, 1], but got {images.dtype}. "
            f"{cure}."
        )
    if images.is_nested or images.layout != torch.strided:
        layout = "a nested tensor" if images.is_nested else images.layout
        raise TypeError(f"Images `{name}` must be an ordinary dense tensor, but got {layout}.")
    if 0 in images.shape:
        raise ValueError(f"Images `{name}` must not be empty, but got {_shape(images)}.")


def check_batch(name: str, images: Tensor) -> None:
    """Check one batch ``(N, 1 or 3, H, W)``.

    Raises:
        TypeError: if it is no dense floating point tensor.
        ValueError: if it has another shape.
    """
    check_tensor(name, images)
    if images.dim() != 4:
        raise ValueError(f"Images `{name}` must have the shape (N, 3, H, W), but got {_shape(images)}.")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"Images `{name}` must have 1 or 3 channels in dimension 1, but got {_shape(images)}.")


def _shape(images: Tensor) -> tuple[int, ...]:
    return tuple(images.shape)


def at_least_float32(images: Tensor) -> Tensor:
    """Return half precision images or features as float32, all others as they are."""
    return images.float() if images.dtype in (torch.float16, torch.bfloat16) else images


def as_rgb(images: Tensor) -> Tensor:
    """Repeat one channel to three: ``(N, 1 or 3, H, W)`` to ``(N, 3, H, W)``."""
    return images.expand(-1, 3, -1, -1)


def reflect_pad_to_multiple(images: Tensor, multiple: int, remainder: int = 0) -> Tensor:
    """Pad ``(N, C, H, W)`` by reflection, centred, until H and W are multiples of ``multiple`` plus ``remainder``.

    Patch embeddings drop the right and bottom pixels that do not fill a patch in silence; padding
    keeps every pixel in sight.
    """
    # Not `(remainder - length) % multiple`: Inductor knows no remainder of a size that changes.
    height, width = (
        (length - remainder + multiple - 1) // multiple * multiple + remainder - length for length in images.shape[-2:]
    )
    if not height and not width:
        return images
    top, left = height // 2, width // 2
    return F.pad(images, (left, width - left, top, height - top), mode="reflect")


def resize_to(images: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Resize ``(N, C, h, w)`` bicubically to ``size`` and clamp to [0, 1]."""
    if (images.shape[-2], images.shape[-1]) != size:
        images = F.interpolate(images, size=size, mode="bicubic", align_corners=align_corners)
    return torch.clamp(images, 0, 1)
