"""``gt_size`` and ``scale``: crops of GT that no crop of LR fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clp_basicsr.hosts.options.file import OptionFileError

_CROP_PAIRS = (
    "PairedImageDataset",
    "PairedNegativeDataset",
    "RealESRGANPairedDataset",
    "REDSDataset",
    "REDSRecurrentDataset",
    "Vimeo90KDataset",
    "Vimeo90KRecurrentDataset",
)


def check_crop(path: Path, options: Mapping[str, Any]) -> None:
    """Check the size of the crops of a training.

    Args:
        path: where the options come from.
        options: all of them.

    Raises:
        OptionFileError: if SR could not have the size of GT.
    """
    data = options["datasets"]["train"]
    if not isinstance(data, Mapping) or str(data.get("type")).removesuffix("_basicsr") not in _CROP_PAIRS:
        return
    size, scale = data.get("gt_size"), options.get("scale", data.get("scale"))
    if not isinstance(size, int) or not isinstance(scale, int) or size < 1 or scale < 1 or not size % scale:
        return
    near = [each for each in (size // scale * scale, (size // scale + 1) * scale) if each]
    raise OptionFileError(
        f"Option `datasets: train: gt_size` in '{path}' must be a multiple of `scale`, {scale}, but got {size}: SR of "
        f"LR's crop would have another size than GT's. Write {' or '.join(map(str, near))}."
    )
