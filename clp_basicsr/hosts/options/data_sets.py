"""What is known of BasicSR's data sets, and of this package's; of others nothing is."""

from __future__ import annotations

from typing import NamedTuple


class DataSet(NamedTuple):
    """A data set's options that it reads without asking whether they are there."""

    roots: tuple[str, ...]
    """Its folders."""
    crops_pairs: bool = False
    """Whether it cuts crops of ``gt_size`` out of GT, and the same out of LR."""


_BOTH = ("dataroot_gt", "dataroot_lq")
DATA_SETS = {
    "PairedImageDataset": DataSet(_BOTH, crops_pairs=True),
    "PairedNegativeDataset": DataSet(_BOTH, crops_pairs=True),
    "RealESRGANPairedDataset": DataSet(_BOTH, crops_pairs=True),
    "RealESRGANDataset": DataSet(("dataroot_gt",)),
    "FFHQDataset": DataSet(("dataroot_gt",)),
    "SingleImageDataset": DataSet(("dataroot_lq",)),
    "REDSDataset": DataSet(_BOTH, crops_pairs=True),
    "REDSRecurrentDataset": DataSet(_BOTH, crops_pairs=True),
    "Vimeo90KDataset": DataSet(_BOTH, crops_pairs=True),
    "Vimeo90KRecurrentDataset": DataSet(_BOTH, crops_pairs=True),
    "VideoTestDataset": DataSet(_BOTH),
    "VideoTestVimeo90KDataset": DataSet(_BOTH),
    "VideoTestDUFDataset": DataSet(_BOTH),
    "VideoRecurrentTestDataset": DataSet(_BOTH),
}
"""By ``type``."""
