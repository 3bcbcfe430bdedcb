"""Image files to tensors and back, and folders for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from clp_basicsr.whole_files import whole_file


def read_image(path: Path) -> Tensor:
    """Return an image file as RGB ``(1, 3, H, W)`` in [0, 1], turned and scaled as OpenCV reads it for BasicSR.

    Raises:
        OSError: if it is no image file.
    """
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # grey of 16 bits, which convert("RGB") would cut off at 255
            grey = np.asarray(image, dtype=np.float32) / 65535
            pixels = np.repeat(grey[..., None], 3, axis=2)
        else:
            pixels = np.array(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def write_image(image: Image.Image, path: Path) -> None:
    """Write an image in the format of its file's ending.

    Raises:
        OSError: if it cannot be written; an earlier file of that name is left as it was.
        KeyError: for an ending that Pillow does not know.
    """
    with whole_file(path) as file:
        image.save(file, format=Image.registered_extensions()[path.suffix.lower()])


def make_folder(path: Path, flag: str) -> None:
    """Make a folder that ``flag`` asks for, and those above it, unless it is there.

    Raises:
        ValueError: if there is something else in its place, or it may not be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"Flag `{flag}` must name a folder, or a place where one can be made, but got '{path}': {error.strerror}."
        ) from error


def as_bytes(image: Tensor) -> NDArray[np.uint8]:
    """Return ``(1, 3, H, W)`` in [0, 1] as RGB ``(H, W, 3)`` of 8 bits, as it would be saved."""
    pixels = (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return np.ascontiguousarray(pixels.cpu().numpy())
