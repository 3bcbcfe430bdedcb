"""RealESRGANModel and RealESRNetModel, BasicSR's own and those of the `realesrgan` package, moved to the CPU."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hosts.options import DISCRIMINATOR, NETWORKS, SCALE, Options, train_options
from hosts.records import CLP_KEYS, Call, Records
from hosts.runs import isolated

BATCH, POOL, STEPS = 2, 4, 5

# The degradations as the recipe has them, but mild: pairs must be told by their images.
DEGRADATIONS: Options = {
    "high_order_degradation": True,
    "gt_size": 64,
    "queue_size": POOL,
    "resize_prob": [0, 0, 1],
    "resize_range": [0.9, 1.1],
    "gaussian_noise_prob": 0.5,
    "noise_range": [1, 2],
    "poisson_scale_range": [0.05, 0.1],
    "gray_noise_prob": 0.4,
    "jpeg_range": [90, 95],
    "second_blur_prob": 0.5,
    "resize_prob2": [0, 0, 1],
    "resize_range2": [0.9, 1.1],
    "gaussian_noise_prob2": 0.5,
    "noise_range2": [1, 2],
    "poisson_scale_range2": [0.05, 0.1],
    "gray_noise_prob2": 0.4,
    "jpeg_range2": [90, 95],
}

# As in the recipe, but nearly without blur.
LITTLE_BLUR: Options = {
    f"{key}{suffix}": value
    for suffix in ("", "2")
    for key, value in {
        "blur_kernel_size": 21,
        "kernel_list": ["iso", "aniso"],
        "kernel_prob": [0.5, 0.5],
        "sinc_prob": 0,
        "blur_sigma": [0.2, 0.3],
        "betag_range": [0.5, 4],
        "betap_range": [1, 2],
    }.items()
} | {"final_sinc_prob": 0}


def stand_in_for_the_gpu(replace: Callable[[Any, str, Any], None]) -> None:
    """Let what asks for the GPU by name stay where it is; JPEG's output becomes contiguous, as `filter2D` needs it."""
    from basicsr.utils.diffjpeg import DiffJPEG

    compress = DiffJPEG.forward

    def stay(self: Any, *_: Any, **__: Any) -> Any:
        return self

    def compress_contiguously(self: Any, images: Tensor, quality: Tensor) -> Tensor:
        compressed: Tensor = compress(self, images, quality).contiguous()
        return compressed

    replace(nn.Module, "cuda", stay)
    replace(Tensor, "cuda", stay)
    replace(DiffJPEG, "forward", compress_contiguously)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the GPU for the time of a test."""
    stand_in_for_the_gpu(monkeypatch.setattr)


def realesrgan_options(pairs: Path, model_type: str, *, usm: bool) -> Options:
    """Return the options of a run; ``usm``: the loss's positive is the sharpened GT."""
    options = {**train_options(pairs, model_type=model_type), **DEGRADATIONS, "network_g": dict(NETWORKS["SRModel"])}
    if "RealESRNet" in model_type:
        return {**options, "gt_usm": usm}
    options["network_d"] = dict(DISCRIMINATOR)
    options["train"]["optim_d"] = dict(options["train"]["optim_g"])
    options["train"]["gan_opt"] = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}
    return {**options, "l1_gt_usm": True, "percep_gt_usm": usm, "gan_gt_usm": False}


def check_that_pairs_stay_together(options: Options, package: str, folder: Path, records: Records) -> None:
    """Train steps of the model in ``options``; every LR the loss sees belongs to the GT beside it.

    Args:
        options: of `realesrgan_options`.
        package: where the model's class must come from.
        folder: where to work.
        records: of the fixture of that name.
    """
    from basicsr.models import build_model

    with isolated(folder):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        model = build_model({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1})
        assert type(model).__module__.split(".")[0] == package
        from_the_pool = [_train_a_step(model, step, records) for step in range(1, STEPS + 1)]
    filling = POOL // BATCH
    assert not any(from_the_pool[:filling])
    assert any(from_the_pool[filling:])  # else this would say nothing about the pool
    check_partners(records.calls)


def _train_a_step(model: Any, step: int, records: Records) -> bool:
    """Train one step and check what the loss saw in it; return whether the pool gave GT of another step."""
    options, made = model.opt, batch(step)
    model.feed_data(made)
    model.optimize_parameters(step)
    percep = "l_percep" if "gt_usm" in options else "l_g_percep"
    target = model.gt_usm if options.get("percep_gt_usm") else model.gt
    assert set(model.get_current_log()) >= {percep, *CLP_KEYS}
    assert torch.equal(records.calls[-1].lr, model.lq)
    assert torch.equal(records.calls[-1].target, target)
    assert not torch.equal(model.usm_sharpener(made["gt"]), made["gt"])  # else USM would not matter here
    return not _is_a_crop_of(model.gt, model.usm_sharpener(made["gt"]) if options.get("gt_usm") else made["gt"])


def batch(step: int) -> dict[str, Tensor]:
    """Images that no other step has: each a smooth pattern around a colour of its own."""
    blur = torch.full((BATCH, 21, 21), 1e-6)
    blur[:, 10, 10] = 1
    kernel = blur / blur.sum((1, 2), keepdim=True)
    return {"gt": smooth_images(step, BATCH, 96), "kernel1": kernel, "kernel2": kernel, "sinc_kernel": kernel}


def smooth_images(seed: int, number: int, side: int) -> Tensor:
    """Return ``(number, 3, side, side)`` in [0, 1]; what is told apart by value survives mild degradations."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand(number, 3, 1, 1, generator=generator) * 0.6
    pattern = torch.rand(number, 3, 6, 6, generator=generator) * 0.4
    return colours + F.interpolate(pattern, size=(side, side), mode="bilinear")


def write_large_images(folder: Path) -> Options:
    """Write GT images as large as `RealESRGANDataset` cuts them, and their list; return its options."""
    names = []
    for index, image in enumerate(smooth_images(0, 8, 400)):
        names.append(f"{index}.png")
        pixels = image.permute(1, 2, 0).mul(255).round().byte().numpy()
        assert cv2.imwrite(str(folder / names[-1]), pixels)
    (folder / "names.txt").write_text("\n".join(names), encoding="utf-8")
    return {"dataroot_gt": str(folder), "meta_info": str(folder / "names.txt")}


def check_partners(calls: list[Call]) -> None:
    """Of all GT crops the loss has seen, each LR is nearest to the one it was given with."""
    seen = torch.cat([F.avg_pool2d(call.target, SCALE) for call in calls])
    for index, lr in enumerate(torch.cat([call.lr for call in calls])):
        distances = (seen - lr).abs().mean((1, 2, 3))
        assert distances.argmin() == index or torch.allclose(seen[distances.argmin()], seen[index])
        assert distances[index] < 0.03


def _is_a_crop_of(crops: Tensor, images: Tensor) -> bool:
    size = crops.shape[-1]
    windows = images.unfold(2, size, 1).unfold(3, size, 1)  # (N, 3, y, x, size, size)
    same = (windows == crops[:, :, None, None]).flatten(4).all(4).all(1)
    return bool(same.flatten(1).any(1).all())
