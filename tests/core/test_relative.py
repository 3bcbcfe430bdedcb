"""The relative margin through whole networks: plain loops, its bounds, and what it does not depend on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clp_basicsr import CLPLoss

from .oracles import (
    Images,
    arrays,
    between,
    crop,
    loop_relative,
    torchvision_features,
    torchvision_vgg,
    transformers_features,
    upsampled,
)

Photos = tuple[Tensor, Tensor]

ALL = ("l2", "l1", "cosine")
BLOCKS = {"block1": 1.0, "block4": 0.3, "block6": 2.0}
VGG_LAYERS = {"relu1_1": 1.0, "relu2_1": 0.5}


def loops(features: Sequence[Mapping[str, Tensor]], weights: Mapping[str, float], distance: str, push: float) -> float:
    anchor, positive, negative = (arrays(dict(each)) for each in features)
    values = {
        layer: loop_relative((anchor[layer], positive[layer], negative[layer]), distance, push)[0] for layer in weights
    }
    return sum(weights[layer] * value for layer, value in values.items()) / sum(weights.values())


@pytest.mark.parametrize("push_weight", [0, 0.3, 1])
@pytest.mark.parametrize("distance", ALL)
def test_dinov2_equals_plain_loops(dino_folder: Path, photo_batch: Photos, distance: str, push_weight: float) -> None:
    images = crop(photo_batch, 2, 64, torch.float64)
    three = (images.sr.detach(), images.gt, upsampled(images.lr, (64, 64)))
    features = [transformers_features(dino_folder, each, (1, 4, 6)) for each in three]
    loss = CLPLoss(str(dino_folder), layer_weights=BLOCKS, distance=distance, push_weight=push_weight).double()
    expected = loops(features, BLOCKS, distance, push_weight)
    assert loss(*images).item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("distance", ALL)
def test_vgg_equals_plain_loops(vgg_weights: Path, photo_batch: Photos, distance: str) -> None:
    images = crop(photo_batch, 2, 32, torch.float64)
    three = (images.sr.detach(), images.gt, upsampled(images.lr, (32, 32)))
    oracle = torchvision_vgg(vgg_weights, torch.float64)
    features = [torchvision_features(oracle, each, {"relu1_1": 1, "relu2_1": 6}) for each in three]
    loss = CLPLoss("vgg", weights=vgg_weights, layer_weights=VGG_LAYERS, distance=distance, loss_weight=0.1).double()
    assert loss(*images).item() == pytest.approx(0.1 * loops(features, VGG_LAYERS, distance, 1.0), rel=1e-8)


@pytest.fixture(params=["vgg", "dino", "lite"])
def loss(request: pytest.FixtureRequest, vgg_weights: Path, dino_folder: Path) -> CLPLoss:
    return {
        "vgg": lambda: CLPLoss("vgg", weights=vgg_weights, layer_weights={"relu1_2": 1, "relu2_2": 1}),
        "dino": lambda: CLPLoss(str(dino_folder)),
        "lite": lambda: CLPLoss("efficientnet_lite0"),
    }[request.param]()


def test_near_2_at_the_upsampled_lr_and_0_at_gt(loss: CLPLoss, photo_batch: Photos) -> None:
    _, gt, lr = crop(photo_batch, 3, 96)
    assert 1.6 < loss(upsampled(lr, gt.shape[-2:]), gt, lr).item() < 2
    assert loss(gt, gt, lr).item() < 1e-5


def test_falls_all_the_way_to_gt_and_rises_beyond(loss: CLPLoss, photo_batch: Photos) -> None:
    _, gt, lr = crop(photo_batch, 1, 96)
    values = [loss(between(gt, lr, share, noise=0), gt, lr).item() for share in (0, 0.3, 0.6, 0.9, 1, 1.25)]
    assert values[:5] == sorted(values[:5], reverse=True)
    assert values[5] > values[3] > 0


def test_pull_and_push_read_1_and_1_at_the_upsampled_lr(loss: CLPLoss, photo_batch: Photos) -> None:
    _, gt, lr = crop(photo_batch, 2, 96)
    loss(upsampled(lr, gt.shape[-2:]), gt, lr)
    assert loss.summary is not None
    assert loss.summary.pull.item() == pytest.approx(0.88, abs=0.1)
    assert loss.summary.push.item() == pytest.approx(0.88, abs=0.1)
    loss(gt, gt, lr)
    assert loss.summary.pull.item() < 1e-5
    assert loss.summary.push.item() < 1e-5


def test_value_is_between_the_pull_and_twice_the_pull(loss: CLPLoss, photo_batch: Photos) -> None:
    _, gt, lr = crop(photo_batch, 1, 96)
    for share in (0, 0.3, 0.8):
        value = loss(between(gt, lr, share), gt, lr)
        assert loss.summary is not None
        pull = loss.summary.pull.item()
        assert pull * (1 - 1e-5) <= value.item() <= 2 * pull * (1 + 1e-5)


@pytest.mark.parametrize("distance", ALL)
def test_batch_is_the_mean_of_its_images(dino_folder: Path, photo_batch: Photos, distance: str) -> None:
    """Also with an image without detail, and one whose LR is GT itself, in the batch."""
    images = crop(photo_batch, 3, 64, torch.float64)
    gt = torch.cat((images.gt, torch.full_like(images.gt[:1], 0.3)))
    lr = torch.cat((images.lr, torch.full_like(images.lr[:1], 0.3)))
    sr = torch.cat((images.sr.detach(), gt[3:] + 0.02))
    loss = CLPLoss(str(dino_folder), distance=distance).double()
    single = [loss(*(each[index : index + 1] for each in (sr, gt, lr))).item() for index in range(4)]
    assert loss(sr, gt, lr).item() == pytest.approx(sum(single) / 4, rel=1e-8)


def test_half_batches_give_the_gradient_of_the_whole(dino_folder: Path, photo_batch: Photos) -> None:
    sr, gt, lr = crop(photo_batch, 2, 64, torch.float64)
    loss = CLPLoss(str(dino_folder)).double()
    (whole,) = torch.autograd.grad(loss(sr, gt, lr), sr)
    halves = [torch.autograd.grad(loss(sr[i : i + 1], gt[i : i + 1], lr[i : i + 1]), sr)[0] for i in (0, 1)]
    torch.testing.assert_close(whole, (halves[0] + halves[1]) / 2, rtol=1e-7, atol=1e-12)


def test_only_the_ratio_of_layer_weights_counts(dino_folder: Path, photo_batch: Photos) -> None:
    images = crop(photo_batch, 1, 64, torch.float64)
    scaled = {layer: 17 * weight for layer, weight in BLOCKS.items()}
    values = [CLPLoss(str(dino_folder), layer_weights=each).double()(*images).item() for each in (BLOCKS, scaled)]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_a_layer_of_weight_0_counts_as_left_out(dino_folder: Path, photo_batch: Photos) -> None:
    images: Images = crop(photo_batch, 1, 64)
    with_zero = CLPLoss(str(dino_folder), layer_weights={**BLOCKS, "block8": 0})
    assert with_zero(*images).item() == CLPLoss(str(dino_folder), layer_weights=BLOCKS)(*images).item()


def test_crop_size_hardly_matters(loss: CLPLoss, photo_batch: Photos) -> None:
    values = [loss(*crop(photo_batch, 3, size)).item() for size in (64, 128)]
    assert values[0] == pytest.approx(values[1], rel=0.25)
