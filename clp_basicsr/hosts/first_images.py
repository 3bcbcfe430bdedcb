"""The first image of every validation, looked at when the run starts: BasicSR first looks after `val_freq` iterations.

Images are read as the data set reads them, so that LMDB, EXIF and lists of files are as they will be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.options.types import is_basicsrs, registered
from clp_basicsr.hosts.replacing import replaced
from clp_basicsr.messages import reason, shown

_COMPARE_WITH_GT = {"calculate_psnr", "calculate_ssim", "calculate_clp_pull", "calculate_feature_distance"}
_BLOCK = 96  # basicsr/metrics/niqe.py; a covariance takes two of them
_LARGE = 1_000_000

Size = tuple[int, int]


def check_first_images(opt: Mapping[str, Any], train_loader: Any, val_loaders: Sequence[Any]) -> None:
    """Look at one image of each validation set that is known to be validated as BasicSR does.

    Args:
        opt: BasicSR's options.
        train_loader: of ``datasets: train``; where its data set is BasicSR's, SR is ``scale`` times LR.
        val_loaders: of the validation sets.

    Raises:
        OptionFileError: if the first validation would end the run.
    """
    known = is_basicsrs(registered("MODEL", opt["model_type"])) and is_basicsrs(type(train_loader.dataset))
    if not known or opt["rank"] or not opt.get("val"):
        return
    metrics = {
        name: dict(block) for name, block in (opt["val"].get("metrics") or {}).items() if isinstance(block, Mapping)
    }
    for loader in val_loaders:
        if _is_plain(loader.dataset) and len(loader.dataset) and isinstance(opt.get("scale"), int):
            _check(loader.dataset, opt["scale"], metrics)


def _is_plain(dataset: Any) -> bool:
    from basicsr.data.paired_image_dataset import PairedImageDataset
    from basicsr.data.single_image_dataset import SingleImageDataset

    return type(dataset) in (PairedImageDataset, SingleImageDataset)


def _check(dataset: Any, scale: int, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    item = _first(dataset)
    where = f"The first image of validation set `{dataset.opt['name']}`, '{item['lq_path']}',"
    lq = _size(item["lq"])
    sr = (lq[0] * scale, lq[1] * scale)
    if "gt" in item and any(str(block.get("type")) in _COMPARE_WITH_GT for block in metrics.values()):
        _check_pair(where, lq, _size(item["gt"]), item["gt_path"], scale)
    for name, block in metrics.items():
        if block.get("type") == "calculate_niqe" and isinstance(block.get("crop_border"), int):
            _check_niqe(where, name, sr, block["crop_border"])


def _first(dataset: Any) -> Mapping[str, Any]:
    # With its own scale the data set cuts GT to that many times LR's size, which hides that the pair is of another.
    with replaced(dataset, "opt", {**dataset.opt, "scale": _LARGE}):
        try:
            item: Mapping[str, Any] = dataset[0]
        except Exception as error:  # whatever a file may hold
            raise OptionFileError(
                f"The first image of validation set `{dataset.opt['name']}`, {shown(dataset.paths[0])}, must be one "
                f"that OpenCV reads, but it cannot be read: {reason(error)}"
            ) from error
    return item


def _check_pair(where: str, lq: Size, gt: Size, gt_path: str, scale: int) -> None:
    too_small = any(large < small * scale for large, small in zip(gt, lq))
    of_a_larger_scale = all(large >= small * (scale + 1) for large, small in zip(gt, lq))
    if too_small or of_a_larger_scale:  # in between BasicSR cuts the rest of GT off, which benchmarks need
        raise OptionFileError(
            f"{where} must be smaller than its GT by `scale`, {scale}, but it has {_shown(lq)} pixels and "
            f"'{gt_path}' {_shown(gt)}. Give the pairs of this scale."
        )


def _check_niqe(where: str, name: str, sr: Size, border: int) -> None:
    inside = [max(side - 2 * border, 0) for side in sr]
    if (inside[0] // _BLOCK) * (inside[1] // _BLOCK) < 2:
        raise OptionFileError(
            f"{where} must become at least {_BLOCK} x {2 * _BLOCK} pixels inside `crop_border` for `val: metrics: "
            f"{name}`, but it becomes {_shown(sr)} with a `crop_border` of {border}. Validate with larger images, or "
            "leave calculate_niqe out."
        )


def _size(image: Any) -> Size:
    height, width = image.shape[-2:]
    return height, width


def _shown(size: Size) -> str:
    return f"{size[1]} x {size[0]}"
