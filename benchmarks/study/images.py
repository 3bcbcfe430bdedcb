"""Images on their way in and out: files to tensors and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def read(path: Path) -> Tensor:
    """Return an image file as ``(1, 3, H, W)`` in [0, 1]."""
    pixels = np.array(Image.open(path).convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def pairs(folders: Mapping[str, Path]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return ``{name: (GT, LR)}`` of a folder's images."""
    return {gt.stem: (read(gt), read(folders["lq"] / gt.name)) for gt in sorted(folders["gt"].iterdir())}


def as_bytes(image: Tensor) -> NDArray[np.uint8]:
    """Return ``(1, 3, H, W)`` as RGB ``(H, W, 3)``, 8 bit, as it would be saved."""
    pixels = (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return np.ascontiguousarray(pixels.cpu().numpy())
