"""What an inspection says, against the loss's own value and torch's own gradient."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clp_basicsr import CLPLoss
from clp_basicsr.inspection import inspect

from .oracles import crop, enlarged, upsampled

Photos = tuple[Tensor, Tensor]
LAYERS = {"relu1_2": 1.0, "relu2_2": 0.5}
BLUR = {"type": "blur", "count": 2}
LOSSES: dict[str, dict[str, Any]] = {
    "relative": {},
    "fixed": {"margin": 2.0},
    "ratio": {"criterion": "ratio"},
    "infonce": {"criterion": "infonce", "negatives": ["lr", BLUR]},
    "directional": {"criterion": "directional"},
    "batch_ratio l1": {"criterion": "batch_ratio", "distance": "l1"},
}


def vgg(weights: Path, **keywords: Any) -> CLPLoss:
    return CLPLoss("vgg", weights=weights, **{"layer_weights": LAYERS, **keywords}).double()


@pytest.mark.parametrize("name", LOSSES)
def test_value_gradient_and_shares_are_the_losss(name: str, vgg_weights: Path, photo_batch: Photos) -> None:
    loss = vgg(vgg_weights, **LOSSES[name])
    images = crop(photo_batch, 1, 48, torch.float64)
    seen = inspect(loss, *images)
    value = loss.evaluate(*images)
    (gradient,) = torch.autograd.grad(value, images.sr)
    (pixel,) = torch.autograd.grad(F.l1_loss(images.sr, images.gt), images.sr)
    assert seen.loss == pytest.approx(value.item(), rel=1e-9)
    torch.testing.assert_close(seen.gradient, gradient[0].square().sum(0).sqrt())
    assert seen.gradient_ratio == pytest.approx(float(gradient.norm() / pixel.norm()), rel=1e-5)
    assert loss.summary is not None
    for number in ("pull", "push"):
        means = [getattr(seen.layers[layer].maps, number).mean() for layer in LAYERS]
        expected = sum(float(mean) * weight for mean, weight in zip(means, LAYERS.values())) / sum(LAYERS.values())
        assert expected == pytest.approx(float(getattr(loss.summary, number)), rel=1e-6)
    assert sum(view.loss_share for view in seen.layers.values()) == pytest.approx(1)
    assert sum(view.gradient_share for view in seen.layers.values()) == pytest.approx(1)


def test_gradient_in_float16_is_the_losss(vgg_weights: Path) -> None:
    """Small numbers of large images would be 0 there, if nothing scaled them."""
    torch.manual_seed(0)
    gt = F.avg_pool2d(torch.rand(1, 3, 260, 260), 5, 1)
    lr = F.avg_pool2d(gt, 4)
    sr = torch.lerp(upsampled(lr, gt.shape[-2:]), gt, 0.4).requires_grad_()
    weights = {"relu1_1": 1 / 32, "relu2_1": 1 / 16}
    loss = CLPLoss("vgg", weights=vgg_weights, layer_weights=weights, input_scale=255.0, precision="float16")
    (gradient,) = torch.autograd.grad(loss.evaluate(sr, gt, lr), sr)
    expected = gradient[0].norm(dim=0)
    seen = inspect(loss, sr, gt, lr).gradient
    assert (seen - expected).norm() / expected.norm() < 0.01


@pytest.mark.parametrize("keywords", [{}, {"distance": "l1"}, {"criterion": "infonce"}], ids=str)
def test_of_a_copy(keywords: dict[str, Any], vgg_weights: Path, photo_batch: Photos) -> None:
    loss = vgg(vgg_weights, **keywords)
    images = crop(photo_batch, 1, 48, torch.float64)
    first, second = (inspect(each, *images) for each in (loss, copy.deepcopy(loss)))
    assert first.distance == second.distance
    for layer, view in first.layers.items():
        assert view.numbers == second.layers[layer].numbers
        torch.testing.assert_close(view.maps.pull, second.layers[layer].maps.pull)


def test_shares_are_those_of_a_loss_with_one_layer(vgg_weights: Path, photo_batch: Photos) -> None:
    images = crop(photo_batch, 1, 48, torch.float64)
    seen = inspect(vgg(vgg_weights), *images)
    values, gradients = [], []
    for layer, weight in LAYERS.items():
        value = vgg(vgg_weights, layer_weights={layer: weight}).evaluate(*images) * weight / sum(LAYERS.values())
        values.append(value.item())
        gradients.append(torch.autograd.grad(value, images.sr)[0])
    whole = sum(gradients)
    for view, value, gradient in zip(seen.layers.values(), values, gradients):
        torch.testing.assert_close(view.gradient, gradient[0].square().sum(0).sqrt())
        assert view.loss_share == pytest.approx(value / sum(values), rel=1e-9)
        assert view.gradient_share == pytest.approx(float((gradient * whole).sum() / (whole * whole).sum()), rel=1e-9)


def test_tiles_see_what_one_pass_sees(vgg_weights: Path, photo_batch: Photos) -> None:
    loss, images = vgg(vgg_weights), enlarged(photo_batch, 100, 130)
    images = type(images)(*(each.detach().double() for each in images))
    whole, tiled = inspect(loss, *images), inspect(loss, *images, tile=80, overlap=16)
    assert (whole.tiles, tiled.tiles) == (1, 6)
    assert tiled.loss == pytest.approx(whole.loss, rel=1e-9)
    torch.testing.assert_close(tiled.gradient, whole.gradient)
    for layer in LAYERS:
        for pair in zip(tiled.layers[layer].maps, whole.layers[layer].maps):
            torch.testing.assert_close(*pair)


def test_an_image_that_is_long_and_too_narrow(vgg_weights: Path) -> None:
    images = torch.rand(1, 3, 7, 200), torch.rand(1, 3, 7, 200), torch.rand(1, 3, 2, 50)
    with pytest.raises(ValueError, match=r"at least 16x16 pixels .* but got 7x200"):
        inspect(vgg(vgg_weights, layer_weights={"relu5_1": 1.0}), *images, tile=80, overlap=16)


def test_a_transformer(dino_folder: Path, photo_batch: Photos) -> None:
    seen = inspect(CLPLoss(str(dino_folder), distance="cosine"), *enlarged(photo_batch, 120, 90), tile=80, overlap=14)
    assert seen.tiles > 1
    assert seen.layers["block1"].maps.pull.shape == (9, 7)
    assert seen.gradient.shape == (120, 90)
    assert seen.gradient.isfinite().all()


def test_the_loss_is_left_as_it_is(vgg_weights: Path, photo_batch: Photos) -> None:
    loss = CLPLoss(
        "vgg", weights=vgg_weights, layer_weights=LAYERS, negatives=["lr", "blur"], auto_weight=0.1, start_iter=5
    )
    images = crop(photo_batch, 1, 48)
    untouched = copy.deepcopy(loss)
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = inspect(loss, *images)
    assert first.loss == inspect(loss, *images).loss
    assert loss.summary is None
    assert loss.diagnostics is None
    assert loss.balance is not None
    assert not loss.balance.states
    assert loss.clock.ticks == 0
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])
    assert loss.evaluate(*images).item() == untouched.evaluate(*images).item()
    assert images.sr.grad is None


def test_negatives_that_only_a_run_has_are_left_out_and_named(vgg_weights: Path, photo_batch: Photos) -> None:
    images = crop(photo_batch, 1, 48)
    plain = inspect(CLPLoss("vgg", weights=vgg_weights, layer_weights=LAYERS), *images)
    for negatives, left_out in ((["lr", "ema", "lagged"], ("ema", "lagged")), (["batch", "files"], ("batch", "files"))):
        seen = inspect(CLPLoss("vgg", weights=vgg_weights, layer_weights=LAYERS, negatives=negatives), *images)
        assert seen.left_out == left_out
        assert seen.loss == plain.loss


@pytest.mark.parametrize(
    ("negatives", "over_negatives", "alone"),
    [
        (["lr", "files"], [6, 1.25, 0.75], {"negatives": "lr"}),
        (["files", BLUR, "lr"], [9, 9, 1, 2, 3], {"negatives": [BLUR, "lr"], "over_negatives": [1, 2, 3]}),
        (["lr", "files", BLUR], [1, 9, 2, 3], {"negatives": ["lr", BLUR], "over_negatives": [1, 2, 3]}),
        (["files", "lr", "batch"], [9, 1, 9], {"negatives": "lr"}),
        (["lr", "files"], [0, 1], {"negatives": "lr"}),
        ([BLUR, "lr"], [2, 3, 1], {"negatives": [BLUR, "lr"], "over_negatives": [2, 3, 1]}),
        (["lr", "files", BLUR, "lagged"], [1, 9, 2, 3, 9], {"negatives": "lr"}),
    ],
)
def test_negatives_that_are_left_out_take_their_weights_along(
    negatives: Any, over_negatives: list[float], alone: dict[str, Any], vgg_weights: Path, photo_batch: Photos
) -> None:
    keywords = {"weights": vgg_weights, "layer_weights": LAYERS, "criterion": "batch_ratio"}
    images = crop(photo_batch, 1, 48)
    expected = CLPLoss("vgg", **keywords, **alone).evaluate(*images).item()
    seen = inspect(CLPLoss("vgg", **keywords, negatives=negatives, over_negatives=over_negatives), *images)
    assert seen.loss == pytest.approx(expected, rel=1e-5)


def test_under_no_grad_and_at_gt(vgg_weights: Path, photo_batch: Photos) -> None:
    gt, lr = (each[:1] for each in photo_batch)
    with torch.no_grad():
        seen = inspect(CLPLoss("vgg", weights=vgg_weights, layer_weights=LAYERS), gt, gt, lr)
    assert seen.loss == 0
    assert seen.gradient.abs().max() == 0
    assert np.isnan(seen.gradient_ratio)
    assert [view.loss_share for view in seen.layers.values()] == [0, 0]


def test_range_of_minus_one_to_one(vgg_weights: Path, photo_batch: Photos) -> None:
    images = [each[:1] for each in (photo_batch[0] * 0.9, *photo_batch)]
    plain = inspect(CLPLoss("vgg", weights=vgg_weights, layer_weights=LAYERS), *images)
    shifted = inspect(
        CLPLoss("vgg", weights=vgg_weights, layer_weights=LAYERS, range_norm=True), *(each * 2 - 1 for each in images)
    )
    assert shifted.loss == pytest.approx(plain.loss, rel=1e-5)
    torch.testing.assert_close(shifted.images["SR"], plain.images["SR"])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("range_norm", [False, True])
def test_gradients_are_those_at_the_hosts_images(
    channels: int, range_norm: bool, vgg_weights: Path, photo_batch: Photos
) -> None:
    loss = vgg(vgg_weights, range_norm=range_norm)
    sr, gt, lr = (each.detach()[:, :channels] for each in crop(photo_batch, 1, 48, torch.float64))
    sr, gt, lr = ((each * 2 - 1 if range_norm else each) for each in (sr, gt, lr))
    seen = inspect(loss, sr, gt, lr)
    leaf = sr.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss.evaluate(leaf, gt, lr), leaf)
    (pixel,) = torch.autograd.grad(F.l1_loss(leaf, gt), leaf)
    torch.testing.assert_close(seen.gradient, gradient[0].square().sum(0).sqrt())
    assert seen.gradient_ratio == pytest.approx(float(gradient.norm() / pixel.norm()), rel=1e-5)
