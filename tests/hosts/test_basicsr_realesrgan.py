"""RealESRGANModel, which makes its own LR batch and mixes pairs through a pool, moved to the CPU."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from basicsr.models import build_model, realesrgan_model
from torch import Tensor, nn

from hosts.options import DISCRIMINATOR, NETWORKS, SCALE, Options, train_options
from hosts.records import CLP_KEYS, Records
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


@pytest.fixture
def _on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the GPU that the model asks for by name; `filter2D` there gets contiguous images."""

    def stay(self: Any, *_: Any, **__: Any) -> Any:
        return self

    def filter_contiguous(images: Tensor, kernel: Tensor) -> Tensor:
        return filter2d(images.contiguous(), kernel)

    filter2d: Callable[[Tensor, Tensor], Tensor] = realesrgan_model.filter2D
    monkeypatch.setattr(nn.Module, "cuda", stay)
    monkeypatch.setattr(Tensor, "cuda", stay)
    monkeypatch.setattr(realesrgan_model, "filter2D", filter_contiguous)


def build(pairs: Path, folder: Path, percep_gt_usm: bool) -> Any:
    options = train_options(pairs, model_type="RealESRGANModel")
    options |= {"is_train": True, "dist": False, "rank": 0, "world_size": 1, **DEGRADATIONS}
    options |= {"l1_gt_usm": True, "percep_gt_usm": percep_gt_usm, "gan_gt_usm": False}
    options |= {"network_g": dict(NETWORKS["SRModel"]), "network_d": dict(DISCRIMINATOR)}
    options["train"]["optim_d"] = dict(options["train"]["optim_g"])
    options["train"]["gan_opt"] = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}
    with isolated(folder):
        return build_model(options)


def batch(step: int) -> dict[str, Tensor]:
    """Images that no other step has: each a smooth pattern around a colour of its own."""
    generator = torch.Generator().manual_seed(step)
    colours = torch.rand(BATCH, 3, 1, 1, generator=generator) * 0.6
    pattern = torch.rand(BATCH, 3, 6, 6, generator=generator) * 0.4
    blur = torch.full((BATCH, 21, 21), 1e-6)
    blur[:, 10, 10] = 1
    kernel = blur / blur.sum((1, 2), keepdim=True)
    gt = colours + F.interpolate(pattern, size=(96, 96), mode="bilinear")
    return {"gt": gt, "kernel1": kernel, "kernel2": kernel, "sinc_kernel": kernel}


@pytest.mark.usefixtures("_on_cpu")
@pytest.mark.parametrize("percep_gt_usm", [True, False])
def test_lr_is_the_partner_of_gt_from_the_pool(
    percep_gt_usm: bool, pairs: Path, tmp_path: Path, records: Records
) -> None:
    model = build(pairs, tmp_path, percep_gt_usm)
    from_the_pool = []
    with isolated(tmp_path):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        for step in range(1, STEPS + 1):
            made = batch(step)
            model.feed_data(made)
            from_the_pool.append(not _is_a_crop_of(model.gt, made["gt"]))
            model.optimize_parameters(step)
            assert set(model.get_current_log()) >= {"l_g_percep", *CLP_KEYS}
            assert torch.equal(records.calls[-1].lr, model.lq)
            assert torch.equal(records.calls[-1].target, model.gt_usm if percep_gt_usm else model.gt)

    assert any(from_the_pool[POOL // BATCH :])  # else this would say nothing about the pool
    seen = _thumbnails([call.target for call in records.calls])
    given = _thumbnails([call.lr for call in records.calls])
    for index, lr in enumerate(given):
        distances = (seen - lr).abs().mean((1, 2, 3))
        assert distances.argmin() == index or torch.allclose(seen[distances.argmin()], seen[index])
        assert distances[index] < 0.03


def _is_a_crop_of(crops: Tensor, images: Tensor) -> bool:
    size = crops.shape[-1]
    windows = images.unfold(2, size, 1).unfold(3, size, 1)  # (N, 3, y, x, size, size)
    same = (windows == crops[:, :, None, None]).flatten(4).all(4).all(1)
    return bool(same.flatten(1).any(1).all())


def _thumbnails(batches: list[Tensor]) -> Tensor:
    images = [F.avg_pool2d(images, SCALE) if images.shape[-1] == 64 else images for images in batches]
    return torch.cat(images)
