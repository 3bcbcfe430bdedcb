"""A fixed margin is the original loss: torch's triplet on torchvision's and transformers' own features."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from clp_basicsr import CLPLoss

from .oracles import (
    VGG_INDICES,
    Features,
    Images,
    crop,
    torch_triplet,
    torchvision_features,
    torchvision_vgg,
    transformers_features,
    upsampled,
)

Photos = tuple[Tensor, Tensor]
Extract = Callable[[Tensor], Features]

VGG_WEIGHTS = {"relu1_2": 0.5, "relu2_2": 0.5, "relu3_4": 1.0, "relu4_4": 1.0, "relu5_4": 1.0}
DINO_WEIGHTS = dict(zip([f"block{block}" for block in range(1, 9)], [1, 0.5, 0.5, 1, 0.5, 0.5, 1, 0.1]))
DISTANCES = [("l2", 2.0), ("l1", 1.0)]


@pytest.fixture(scope="module")
def vgg_oracle(vgg_weights: Path) -> nn.Sequential:
    return torchvision_vgg(vgg_weights, torch.float64)


def original(extract: Extract, images: Images, weights: Mapping[str, float], margin: float, p: float) -> Tensor:
    negative = upsampled(images.lr, images.sr.shape[-2:])
    anchor, positive, negatives = (extract(each) for each in (images.sr, images.gt, negative))
    return torch_triplet(anchor, positive, negatives, weights, margin, p)


def check_value_and_gradient(loss: CLPLoss, expected: Tensor, images: Images, rtol: float) -> None:
    value = loss(*images)
    torch.testing.assert_close(value, expected, rtol=rtol, atol=0)
    (gradient,) = torch.autograd.grad(value, images.sr)
    (wanted,) = torch.autograd.grad(expected, images.sr)
    assert wanted.abs().max() > 0
    torch.testing.assert_close(gradient, wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())


@pytest.mark.parametrize(("distance", "p"), DISTANCES)
def test_vgg_is_the_original_loss(
    vgg_weights: Path, vgg_oracle: nn.Sequential, photo_batch: Photos, distance: str, p: float
) -> None:
    images = crop(photo_batch, 2, 48, torch.float64)
    expected = original(lambda x: torchvision_features(vgg_oracle, x, VGG_INDICES), images, VGG_WEIGHTS, 1.0, p)
    loss = CLPLoss("vgg", weights=vgg_weights, margin=1.0, distance=distance).double()
    check_value_and_gradient(loss, expected, images, rtol=1e-9)


@pytest.mark.parametrize(("distance", "p"), DISTANCES)
def test_dinov2_is_the_original_loss(dino_folder: Path, photo_batch: Photos, distance: str, p: float) -> None:
    images = crop(photo_batch, 2, 128, torch.float64)
    margin = 1.0 if distance == "l2" else 20.0
    expected = original(lambda x: transformers_features(dino_folder, x, range(1, 9)), images, DINO_WEIGHTS, margin, p)
    loss = CLPLoss(str(dino_folder), margin=margin, distance=distance).double()
    check_value_and_gradient(loss, expected, images, rtol=1e-9)


def test_active_is_the_share_of_open_hinges_among_those_of_all_layers(
    vgg_weights: Path, vgg_oracle: nn.Sequential, photo_batch: Photos
) -> None:
    weights = {"relu1_2": 0.1, "relu3_4": 1.0}
    images = crop(photo_batch, 2, 48, torch.float64)
    loss = CLPLoss("vgg", weights=vgg_weights, margin=1.0, layer_weights=weights).double()
    loss(*images)
    negative = upsampled(images.lr, images.sr.shape[-2:])
    indices = {layer: VGG_INDICES[layer] for layer in weights}
    three = [torchvision_features(vgg_oracle, each, indices) for each in (images.sr, images.gt, negative)]
    hinge = nn.TripletMarginLoss(margin=1.0, reduction="none")
    opened = [hinge(*((weight * each[layer]).flatten(2) for each in three)) > 0 for layer, weight in weights.items()]
    shares = [each.double().mean().item() for each in opened]
    assert loss.summary is not None
    assert abs(shares[0] - shares[1]) > 0.1
    assert loss.summary.active.item() == pytest.approx(torch.cat([each.flatten() for each in opened]).double().mean())


def test_float32_is_as_near_to_float64_as_torchs_own(vgg_weights: Path, photo_batch: Photos) -> None:
    """Units that rounding switches on or off move the gradient by half a percent, the oracle's too."""
    oracles = [torchvision_vgg(vgg_weights, dtype) for dtype in (torch.float64, torch.float32)]
    gradients = []
    for oracle in oracles:
        images = crop(photo_batch, 2, 48, next(oracle.parameters()).dtype)
        extract = partial(torchvision_features, oracle, indices=VGG_INDICES)
        expected = original(extract, images, VGG_WEIGHTS, 1.0, 2.0)
        gradients.append(torch.autograd.grad(expected, images.sr)[0].double())
    exact, torchs = gradients
    value = CLPLoss("vgg", weights=vgg_weights, margin=1)(*images)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)
    (gradient,) = torch.autograd.grad(value, images.sr)
    assert (gradient - exact).norm() < 2 * (torchs - exact).norm()
    assert (gradient - exact).norm() < 0.02 * exact.norm()


def test_loss_weight_and_other_margin(dino_folder: Path, photo_batch: Photos) -> None:
    images = crop(photo_batch, 3, 64, torch.float64)
    weights = {"block2": 0.25, "block5": 3.0}
    expected = 0.01 * original(lambda x: transformers_features(dino_folder, x, (2, 5)), images, weights, 7.5, 2.0)
    loss = CLPLoss(str(dino_folder), margin=7.5, loss_weight=0.01, layer_weights=weights).double()
    check_value_and_gradient(loss, expected, images, rtol=1e-9)


def test_an_integer_margin_is_the_same_number(dino_folder: Path, photo_batch: Photos) -> None:
    images = crop(photo_batch, 1, 64)
    values = [CLPLoss(str(dino_folder), margin=margin)(*images).detach() for margin in (2, 2.0)]
    assert torch.equal(values[0], values[1])


def test_the_hinge_dies_near_gt(dino_folder: Path, photo_batch: Photos) -> None:
    """What a fixed margin is known for: where it is small against the features, SR stops learning."""
    _, gt, lr = crop(photo_batch, 1, 64)
    sr = (gt + 0.01).requires_grad_()
    value = CLPLoss(str(dino_folder), margin=1e-3)(sr, gt, lr)
    value.backward()
    assert value.item() == 0
    assert sr.grad is not None
    assert sr.grad.abs().max() == 0
