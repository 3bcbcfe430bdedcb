"""A training whose data never fill a batch: BasicSR drops the rest of every epoch, and would train nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clp_basicsr.hosts.options.errors import OptionFileError


def check_batches(opt: Mapping[str, Any], loader: Any) -> None:
    """Check that an epoch has a batch.

    Args:
        opt: BasicSR's options.
        loader: of ``datasets: train``.

    Raises:
        OptionFileError: if it has none.
    """
    if len(loader):
        return
    data = opt["datasets"]["train"]
    gpus = opt["world_size"] if opt["dist"] else max(opt["num_gpu"], 1)
    images, ratio = len(loader.dataset), data.get("dataset_enlarge_ratio", 1)
    share = f", divided among {gpus} GPUs or processes" if gpus > 1 else ""
    raise OptionFileError(
        "Option `datasets: train: batch_size_per_gpu` must be at most the number of images times "
        f"`dataset_enlarge_ratio`{share}: with {data['batch_size_per_gpu']}, and {images} images times {ratio}, no "
        "batch is ever full and nothing is trained. Lower it, or raise `dataset_enlarge_ratio`."
    )
