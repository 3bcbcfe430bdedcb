"""The study's images: photos that come with scikit-image and scikit-learn, or folders of one's own."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.study.matrix import Matrix
from clp_basicsr.demo.photos import photo

PARTS = ("train", "development", "test")
_OF_SCIKIT_LEARN = ("china", "flower")
_GREY = ("brick", "camera", "coins", "grass", "gravel", "moon")
_NOTE = "made_of.yml"
_TILE = 240
_TILED = 720
_JUDGED = 384
"""Large enough for NIQE's blocks, small enough to judge often."""

Image = NDArray[np.uint8]


def folders(matrix: Matrix, study: Path) -> dict[str, dict[str, Path]]:
    """Return ``{part: {"gt": folder, "lq": folder}}``, after building what is not there."""
    if "photos" in matrix.data:
        _build(matrix.data["photos"], matrix.scale, study / "data", matrix.data.get("tiled", _TILED))
        return {part: {kind: study / "data" / part / kind for kind in ("gt", "lq")} for part in PARTS}
    given: Mapping[str, Any] = matrix.data["folders"]
    found = {part: {kind: Path(given[part][kind]).expanduser().resolve() for kind in ("gt", "lq")} for part in PARTS}
    for folder in (folder for pair in found.values() for folder in pair.values()):
        if not folder.is_dir():
            raise FileNotFoundError(f"`data: folders` must name folders, but there is none at '{folder}'.")
    return found


def write_order(gt: Path, seed: int, path: Path) -> int:
    """Write the training images' names in the order of a seed, as BasicSR's ``meta_info_file``; return how many.

    BasicSR draws the same positions for every seed; which images stand there, and where they are cropped, differ.
    """
    names = sorted(image.name for image in gt.iterdir() if image.is_file())
    random.Random(seed).shuffle(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return len(names)


def _build(photos: Mapping[str, list[str]], scale: int, folder: Path, tiled: int) -> None:
    made_of = {"photos": dict(photos), "scale": scale, "tiled": tiled}
    note = folder / _NOTE
    if folder.is_dir():
        if note.exists() and yaml.safe_load(note.read_text(encoding="utf-8")) != made_of:
            raise ValueError(
                f"The matrix has other `data` than '{folder}' was made of, see '{note}'. Use another folder."
            )
        return
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in PARTS:
        for name in photos[part]:
            image = _read(name)
            cuts = list(_tiles(image, tiled)) if part == "train" else [_middle(image, scale, _JUDGED)]
            for index, cut in enumerate(cuts):
                stem = f"{name}_{index:02d}" if part == "train" else name
                _write_pair(unfinished / part, stem, cut, scale)
    (unfinished / _NOTE).write_text(yaml.safe_dump(made_of, sort_keys=False), encoding="utf-8")
    unfinished.rename(folder)


def _read(name: str) -> Image:
    """Return a photo as RGB ``(H, W, 3)``; grey ones in three equal channels."""
    if name in _OF_SCIKIT_LEARN:
        from sklearn.datasets import load_sample_image

        return np.ascontiguousarray(load_sample_image(f"{name}.jpg"))
    if name in _GREY:
        import skimage.data

        return np.repeat(getattr(skimage.data, name)()[..., None], 3, axis=-1)
    return photo(name)


def _tiles(image: Image, largest: int) -> Iterator[Image]:
    """Cut the middle of a photo, where it shows something, into tiles that overlap little."""
    image = _middle(image, 1, largest)
    tops, lefts = (_starts(side) for side in image.shape[:2])
    for top in tops:
        for left in lefts:
            yield image[top : top + _TILE, left : left + _TILE]


def _starts(side: int) -> list[int]:
    return [int(start) for start in np.linspace(0, side - _TILE, side // _TILE)]


def _middle(image: Image, scale: int, largest: int) -> Image:
    sides = [min(side, largest) // scale * scale for side in image.shape[:2]]
    top, left = ((whole - side) // 2 for whole, side in zip(image.shape[:2], sides))
    return image[top : top + sides[0], left : left + sides[1]]


def _write_pair(folder: Path, name: str, gt: Image, scale: int) -> None:
    from basicsr.utils import imwrite
    from basicsr.utils.matlab_functions import imresize

    bgr = np.ascontiguousarray(gt[..., ::-1])
    lr = imresize(bgr.astype(np.float32) / 255, 1 / scale)
    imwrite(bgr, str(folder / "gt" / f"{name}.png"))
    imwrite((lr.clip(0, 1) * 255).round().astype(np.uint8), str(folder / "lq" / f"{name}.png"))
