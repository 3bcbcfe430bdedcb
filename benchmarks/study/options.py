"""BasicSR's option files: one for the start that all arms share, one for each run."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.study.matrix import START, Matrix, Run

NEVER = 10**9


def checkpoint(name: str) -> Path:
    """Return where BasicSR leaves a finished run's network, below the study's folder."""
    return Path("experiments") / name / "models" / "net_g_latest.pth"


def start_options(matrix: Matrix, train: Mapping[str, Path], images: int) -> dict[str, Any]:
    """Return the option file of the L1 training that all runs start from."""
    options = _common(matrix, START, 0, train, images, matrix.start)
    return {**options, "model_type": "SRModel"}


def run_options(matrix: Matrix, run: Run, loss_weight: float, train: Mapping[str, Path], images: int) -> dict[str, Any]:
    """Return the option file of a run; two arms' files differ in ``name`` and ``perceptual_opt`` alone.

    Args:
        matrix: what the study is made of.
        run: which run.
        loss_weight: of the perceptual loss, strength included.
        train: the folders of the training images.
        images: how many training images there are.
    """
    options = _common(matrix, run.name, run.seed, train, images, matrix.training)
    options["path"].update(pretrain_network_g=str(checkpoint(START)), param_key_g="params_ema")
    loss = matrix.loss(run.arm)
    if loss:
        options["train"]["perceptual_opt"] = {**loss, "loss_weight": loss_weight}
    if not run.gan:
        return {**options, "model_type": "SRModel"}
    gan = copy.deepcopy(matrix.gan)
    options["train"].update(gan["train"])
    return {**options, "model_type": gan["model_type"], "network_d": gan["network_d"]}


def _common(
    matrix: Matrix, name: str, seed: int, train: Mapping[str, Path], images: int, training: Mapping[str, Any]
) -> dict[str, Any]:
    pictures_needed = training["total_iter"] * matrix.batch
    data = {
        "name": "training",
        "type": "PairedImageDataset",
        "dataroot_gt": str(train["gt"]),
        "dataroot_lq": str(train["lq"]),
        "meta_info_file": f"orders/{seed}.txt",
        "io_backend": {"type": "disk"},
        "gt_size": matrix.crop,
        "use_hflip": True,
        "use_rot": True,
        # Without worker processes the crops come from Python's generator, which the seed sets; in one epoch,
        # since workers would start each epoch with the same crops.
        "num_worker_per_gpu": matrix.workers,
        "batch_size_per_gpu": matrix.batch,
        "dataset_enlarge_ratio": math.ceil(pictures_needed / images) + 1,
        "prefetch_mode": None,
    }
    return {
        "name": name,
        "scale": matrix.scale,
        "num_gpu": "auto",
        "manual_seed": seed,
        "datasets": {"train": data},
        "network_g": dict(matrix.network_g),
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": copy.deepcopy(dict(training)),
        "logger": {
            "print_freq": max(1, training["total_iter"] // 10),
            "save_checkpoint_freq": matrix.save_every or NEVER,
            "use_tb_logger": False,
        },
    }
