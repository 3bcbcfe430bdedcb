"""``gt_size`` and ``scale``: crops of GT that no crop of LR fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clp_basicsr.hosts.options.data_sets import DATA_SETS
from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.options.types import plain_name


def check_crop(path: Path, options: Mapping[str, Any]) -> None:
    """Check the size of the crops of a training.

    Args:
        path: where the options come from.
        options: all of them.

    Raises:
        OptionFileError: if SR could not have the size of GT.
    """
    data = options["datasets"]["train"]
    known = DATA_SETS.get(plain_name(data.get("type"))) if isinstance(data, Mapping) else None
    if known is None or not known.crops_pairs:
        return
    size, scale = data.get("gt_size"), options.get("scale", data.get("scale"))
    if not isinstance(size, int) or not isinstance(scale, int) or size < 1 or scale < 1 or not size % scale:
        return
    near = [each for each in (size // scale * scale, (size // scale + 1) * scale) if each]
    raise OptionFileError(
        f"Option `datasets: train: gt_size` in '{path}' must be a multiple of `scale`, {scale}, but got {size}: SR of "
        f"LR's crop would have another size than GT's. Write {' or '.join(map(str, near))}."
    )
