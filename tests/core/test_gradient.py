"""Gradient: to every pixel of SR, to nothing else, finite everywhere, and the numerical one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clp_basicsr import CLPLoss

from .oracles import Images, crop, enlarged, upsampled

Photos = tuple[Tensor, Tensor]
Build = Callable[..., CLPLoss]

NETWORKS = ("vgg", "dinov2", "dinov2_reg", "dinov3", "lite", "torchvision", "timm", "timm_vit")
SIZES = [(128, 128), (192, 192), (256, 256), (120, 200)]
SETTINGS: list[dict[str, Any]] = [
    {"distance": distance, "margin": margin} for distance in ("l2", "l1", "cosine") for margin in ("relative", 1.0)
]


@pytest.fixture
def builds(
    vgg_weights: Path, dino_folder: Path, dino_reg_folder: Path, dinov3_folder: Path, package_weights: dict[str, Path]
) -> dict[str, Build]:
    names = {"torchvision": "torchvision:squeezenet1_1", "timm": "timm:test_resnet", "timm_vit": "timm:test_vit3"}
    packages = {key: partial(CLPLoss, name, weights=package_weights[name]) for key, name in names.items()}
    return {
        **packages,
        "vgg": partial(CLPLoss, "vgg", weights=vgg_weights),
        "dinov2": partial(CLPLoss, str(dino_folder)),
        "dinov2_reg": partial(CLPLoss, str(dino_reg_folder)),
        "dinov3": partial(CLPLoss, str(dinov3_folder)),
        "lite": partial(CLPLoss, "efficientnet_lite0"),
    }


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_pixel_gets_gradient(
    builds: dict[str, Build], photo_batch: Photos, network: str, size: tuple[int, int]
) -> None:
    sr, gt, lr = enlarged(photo_batch, *size)
    builds[network]()(sr, gt, lr).backward()
    assert sr.grad is not None
    assert sr.grad.isfinite().all()
    assert (sr.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("margin", ["relative", 1000.0])
def test_nothing_else_gets_gradient(
    builds: dict[str, Build], photo_batch: Photos, network: str, margin: str | float
) -> None:
    sr, gt, lr = crop(photo_batch, 1, 32)
    gt, lr = gt.clone().requires_grad_(), lr.clone().requires_grad_()
    loss = builds[network](margin=margin)
    loss(sr, gt, lr).backward()
    assert sr.grad is not None
    assert gt.grad is None
    assert lr.grad is None
    assert not any(buffer.requires_grad for buffer in loss.buffers())


def special_images(photos: Photos) -> dict[str, Images]:
    sr, gt, lr = crop(photos, 1, 32)
    black, white, grey = (torch.full_like(gt, value) for value in (0.0, 1.0, 0.4))
    negative = upsampled(lr, (32, 32))
    small = {name: each[..., ::4, ::4] for name, each in {"black": black, "white": white, "grey": grey}.items()}
    return {
        "SR is GT": Images(gt, gt, lr),
        "SR is the upsampled LR": Images(negative, gt, lr),
        "LR is GT": Images(sr, gt, gt),
        "all the same": Images(gt, gt, gt),
        "all black": Images(black, black, small["black"]),
        "all white": Images(white, white, small["white"]),
        "flat SR": Images(grey, gt, lr),
        "flat GT and LR": Images(sr, grey, small["grey"]),
        "flat LR": Images(sr, gt, small["grey"]),
        "SR far outside": Images(gt * 8 - 4, gt, lr),
    }


CASES = list(special_images((torch.rand(3, 3, 128, 128), torch.rand(3, 3, 32, 32))))


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("network", ["vgg", "dinov2", "lite"])
def test_value_and_gradient_are_finite_at_special_images(
    builds: dict[str, Build], photo_batch: Photos, network: str, setting: dict[str, Any]
) -> None:
    layers = {"vgg": {"relu1_2": 1, "relu2_1": 1}, "lite": {"block1": 1, "block3": 1}, "dinov2": None}[network]
    loss = builds[network](**setting, layer_weights=layers)
    cases = special_images(photo_batch)
    for names in (CASES[:2] + CASES[4:], CASES[2:4]):  # LR is as large as GT in the third and fourth
        group = [cases[name] for name in names]
        sr, gt, lr = (torch.cat([getattr(case, name).detach() for case in group]) for name in ("sr", "gt", "lr"))
        value = loss(sr.requires_grad_(), gt, lr)
        value.backward()
        assert sr.grad is not None
        assert value.isfinite()
        finite = sr.grad.isfinite().flatten(1).all(1)
        assert finite.all(), [name for name, good in zip(names, finite) if not good]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("distance", ["l2", "l1", "cosine"])
def test_relative_loss_stays_of_ordinary_size(
    builds: dict[str, Build], photo_batch: Photos, distance: str, case: str
) -> None:
    """Without the part of the floor that measures features, LR == GT gave 24,000."""
    sr, gt, lr = special_images(photo_batch)[case]
    assert 0 <= builds["dinov2"](distance=distance)(sr, gt, lr).item() < 1000


@pytest.mark.parametrize("setting", [*SETTINGS, {"push_weight": 0.3}], ids=str)
def test_gradient_is_the_numerical_one(builds: dict[str, Build], photo_batch: Photos, setting: dict[str, Any]) -> None:
    sr, gt, lr = crop(photo_batch, 2, 20, torch.float64)
    loss = builds["dinov2"](layer_weights={"block1": 1, "block3": 0.5}, **setting).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, gt, lr), (sr,), fast_mode=True)


def test_a_step_against_the_gradient_comes_nearer_to_gt(builds: dict[str, Build], photo_batch: Photos) -> None:
    sr, gt, lr = crop(photo_batch, 1, 64)
    loss = builds["dinov2"]()
    before = loss(sr, gt, lr)
    (gradient,) = torch.autograd.grad(before, sr)
    after = loss(sr.detach() - 1e-3 * gradient / gradient.abs().max(), gt, lr)
    assert after.item() < before.item()
