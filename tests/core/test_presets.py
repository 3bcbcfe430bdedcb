"""The presets against their papers' lines, written out on torchvision's own network."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clp_basicsr import CLPLoss
from clp_basicsr.presets import PRESETS

from .oracles import torchvision_vgg, upsampled

Photos = tuple[Tensor, Tensor]
# AECR-Net models/CR.py: torchvision's `features` 1, 6, 11, 20, 29 and their weights.
WEIGHTS = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}


@pytest.fixture
def images(photo_batch: Photos) -> tuple[Tensor, Tensor, Tensor]:
    gt, lr = (each[:2].double() for each in photo_batch)
    gt, lr = gt[..., :64, :64], lr[..., :16, :16]
    sr = gt * 0.7 + upsampled(lr, (64, 64)) * 0.3
    return sr + 0.02 * torch.randn(sr.shape, generator=torch.Generator().manual_seed(0), dtype=sr.dtype), gt, lr


def loss_of(preset: str, **keywords: Any) -> nn.Module:
    return CLPLoss(preset=preset, **keywords).double()


def vgg_features(network: nn.Sequential, images: Tensor) -> dict[int, Tensor]:
    features = {}
    for index, layer in enumerate(network[:30]):
        images = layer(images)
        if index in WEIGHTS:
            features[index] = images
    return features


@pytest.mark.parametrize(("preset", "scale"), [("aecr", 1), ("c2pnet", 1), ("csd", 255)])
def test_ratio_on_vgg(preset: str, scale: float, images: tuple[Tensor, ...], vgg_weights: Path) -> None:
    sr, gt, lr = images
    network = torchvision_vgg(vgg_weights, torch.float64)
    a, p, n = (vgg_features(network, each * scale) for each in (sr, gt, upsampled(lr, gt.shape[-2:])))

    def away(i: int) -> Tensor:
        own = F.l1_loss(a[i], n[i])
        return own + F.l1_loss(a[i], n[i].flip(0)) if preset == "csd" else own  # the other of the two images

    expected = sum(w * F.l1_loss(a[i], p[i]) / (away(i) + 1e-7) for i, w in WEIGHTS.items())
    torch.testing.assert_close(loss_of(preset, weights=vgg_weights)(sr, gt, lr), expected, rtol=1e-8, atol=0)


def test_rlfn(images: tuple[Tensor, ...]) -> None:
    sr, gt, lr = images
    loss = loss_of("rlfn")
    first, second = (loss.extractor.network[name] for name in ("conv1", "conv2"))

    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        one = F.conv2d(images, first.weight, first.bias, padding=1)
        return one, F.conv2d(one.tanh(), second.weight, second.bias, padding=1)

    a, p, n = (features(each) for each in (sr, gt, upsampled(lr, gt.shape[-2:])))
    expected = sum(F.l1_loss(a[i], p[i]) / (F.l1_loss(a[i], n[i]) + 1e-7) for i in (0, 1))
    torch.testing.assert_close(loss(sr, gt, lr), expected, rtol=1e-8, atol=0)
    assert first.weight.shape == (3, 3, 3, 3)
    assert torch.equal(loss_of("rlfn")(sr, gt, lr), loss(sr, gt, lr))  # the same features in every run


def test_pcl(images: tuple[Tensor, ...], vgg_weights: Path) -> None:
    sr, gt, lr = images
    network = torchvision_vgg(vgg_weights, torch.float64)
    negative = F.interpolate(255 * lr, gt.shape[-2:], mode="bicubic", align_corners=True).clamp(0, 255)
    a, p, n = (vgg_features(network, each) for each in (255 * sr, 255 * gt, negative))
    expected = 0.0
    for index in WEIGHTS:  # which it has, and does not use
        logits = torch.stack([F.cosine_similarity(a[index], each[index], dim=1).mean((1, 2)) for each in (p, n)], 1)
        expected += F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)).item()
    assert PRESETS["pcl"]["negatives"] == ["lr", {"type": "blur", "count": 3, "sigma": [0.1, 2.0]}]
    value = loss_of("pcl", weights=vgg_weights, negatives="lr")(sr, gt, lr).item()
    assert value == pytest.approx(expected / len(WEIGHTS), rel=1e-6)


def test_what_is_given_beside_a_preset_overrules_it(vgg_weights: Path) -> None:
    loss = CLPLoss(preset="aecr", weights=vgg_weights, use_input_norm=True, layer_weights={"relu1_1": 1})
    assert loss.extractor.use_input_norm
    assert loss.layer_weights == {"relu1_1": 1}
    assert CLPLoss("efficientnet_lite0", preset="aecr", layer_weights={"block1": 1}).extractor.name != "vgg19"


@pytest.mark.parametrize(
    ("preset", "keywords"),
    [
        ("pcl", {"criterion": "triplet"}),
        ("csd", {"criterion": "ratio", "distance": "l1"}),
        ("aecr", {"criterion": "infonce"}),
        ("aecr", {"criterion": "triplet", "push_weight": 0.1}),
    ],
)
def test_another_criterion_takes_the_presets_keywords_of_the_old_one_along(
    preset: str, keywords: dict[str, Any]
) -> None:
    shallow: dict[str, Any] = {"weights": "random", "layer_weights": {"relu1_1": 1.0}}
    plain = {
        key: value
        for key, value in PRESETS[preset].items()
        if key in ("use_input_norm", "input_scale", "align_corners")
    }
    seen = CLPLoss(preset=preset, **shallow, **keywords)
    assert seen.criterion == CLPLoss("vgg", **shallow, **plain, **keywords).criterion
    assert seen.extractor.use_input_norm is False


def test_another_network_takes_the_presets_layers_along() -> None:
    for loss in (CLPLoss(preset="aecr", model="random_convs"), CLPLoss("random_convs", preset="aecr")):
        assert loss.layer_weights == CLPLoss("random_convs").layer_weights
        assert loss.criterion == CLPLoss(preset="aecr", weights="random").criterion
    for name in ("vgg", "vgg19"):
        same = CLPLoss(preset="aecr", criterion="batch_ratio", weights="random", model=name)
        assert same.layer_weights["relu1_1"] == 1 / 32
    with pytest.raises(TypeError, match="multiple values for argument 'model'"):
        CLPLoss("vgg", preset="aecr", model="random_convs")  # type: ignore[misc]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_know_only_keywords_of_the_loss(preset: str) -> None:
    shallow = {} if preset == "rlfn" else {"weights": "random", "layer_weights": {"relu1_1": 1.0}}
    CLPLoss(preset=preset, **shallow)  # type: ignore[arg-type]


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match=r"`preset` must be one of .*but got 'aec'\. Did you mean 'aecr'\?"):
        CLPLoss(preset="aec")


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"criterion": "ratio", "temperature": 0.5}, "belongs to 'infonce'"),
        ({"criterion": "infonce", "push_weight": 0.5}, "belongs to 'triplet' and 'directional'"),
        ({"criterion": "ratio", "margin": 1.0}, "belongs to 'triplet'"),
        ({"swap": True}, "a margin that is a number"),
        ({"criterion": "directional", "distance": "cosine"}, "'l2' or left out"),
        ({"criterion": "infonce", "distance": "l1"}, "'cosine' or left out"),
        ({"margin": 1.0, "reduction": "sum"}, "'nonzero'"),
        ({"criterion": "infonce", "temperature": 0}, "> 0"),
    ],
)
def test_keywords_that_do_not_go_together(keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"Argument `") as caught:
        CLPLoss("vgg", weights="random", layer_weights={"relu1_1": 1.0}, **keywords)
    assert said in str(caught.value)
