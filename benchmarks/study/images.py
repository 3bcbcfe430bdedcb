"""The images of a folder of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from clp_basicsr.pictures.files import read_image


def pairs(folders: Mapping[str, Path]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return ``{name: (GT, LR)}`` of a folder's images, ``(1, 3, H, W)`` in [0, 1]."""
    return {gt.stem: (read_image(gt), read_image(folders["lq"] / gt.name)) for gt in sorted(folders["gt"].iterdir())}
