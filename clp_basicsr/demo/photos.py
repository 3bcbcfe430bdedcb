"""The demo's data set: paired x4 images from the photos that scikit-image ships."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 4
TRAINING_PHOTOS = ("astronaut", "rocket", "motorcycle", "hubble_deep_field", "retina")
VALIDATION_PHOTOS = ("chelsea", "coffee")
_TILE = 240
_STEP = 160

Image = NDArray[np.uint8]


def build_data_set(folder: Path) -> None:
    """Write ``{train,val}/{gt,lr}/*.png`` below ``folder``, unless it is complete already.

    Training photos are cut into tiles, as BasicSR's scripts cut DIV2K; validation photos stay
    whole. LR images are made by BasicSR's own MATLAB-like ``imresize``.
    """
    if folder.is_dir():
        return
    # Under another name until it is complete, so that an interrupted run leaves no half data set.
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in TRAINING_PHOTOS:
        for index, tile in enumerate(_tiles(photo(name))):
            _write_pair(unfinished / "train", f"{name}_{index:03d}", tile)
    for name in VALIDATION_PHOTOS:
        _write_pair(unfinished / "val", name, _whole_multiple(photo(name)))
    unfinished.rename(folder)


def photo(name: str) -> Image:
    """Return one of scikit-image's photos as RGB ``(H, W, 3)``, 8 bit."""
    import skimage.data

    image: Any = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    return np.ascontiguousarray(image[..., :3])


def _tiles(image: Image) -> Iterator[Image]:
    height, width = image.shape[:2]
    for top in range(0, height - _TILE + 1, _STEP):
        for left in range(0, width - _TILE + 1, _STEP):
            yield image[top : top + _TILE, left : left + _TILE]


def _whole_multiple(image: Image) -> Image:
    height, width = (side // SCALE * SCALE for side in image.shape[:2])
    return image[:height, :width]


def _write_pair(folder: Path, name: str, gt: Image) -> None:
    from basicsr.utils import imwrite
    from basicsr.utils.matlab_functions import imresize

    bgr = np.ascontiguousarray(gt[..., ::-1])
    lr = imresize(bgr.astype(np.float32) / 255, 1 / SCALE)
    imwrite(bgr, str(folder / "gt" / f"{name}.png"))
    imwrite((lr.clip(0, 1) * 255).round().astype(np.uint8), str(folder / "lr" / f"{name}.png"))
