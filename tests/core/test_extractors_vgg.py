"""VGG19's features by name against torchvision's layers."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from clp_basicsr import CLPLoss, build_extractor
from clp_basicsr.extractors import vgg
from clp_basicsr.gpu import convolutions

from .oracles import VGG_INDICES, torchvision_features, torchvision_vgg

Photos = tuple[Tensor, Tensor]


def _all_indices() -> Iterator[tuple[str, int]]:
    """Name every convolution and ReLU of torchvision's `features` by counting pools."""
    block, convolution = 1, 0
    for index, layer in enumerate(_blueprint()):
        if isinstance(layer, nn.MaxPool2d):
            block, convolution = block + 1, 0
        elif isinstance(layer, nn.Conv2d):
            convolution += 1
            yield f"conv{block}_{convolution}", index
        else:
            yield f"relu{block}_{convolution}", index


def _blueprint() -> nn.Sequential:
    from torchvision.models import vgg

    with torch.device("meta"):
        network: nn.Sequential = vgg.make_layers(vgg.cfgs["E"])
    return network


INDICES = dict(_all_indices())


@pytest.fixture(scope="module")
def oracle(vgg_weights: Path) -> nn.Sequential:
    return torchvision_vgg(vgg_weights)


@pytest.fixture(scope="module")
def image(photo_batch: Photos) -> Tensor:
    return photo_batch[0][:2, :, :32, :48].contiguous()


def check(vgg_weights: Path, oracle: nn.Sequential, image: Tensor, layers: Sequence[str]) -> None:
    features = build_extractor("vgg", layers, vgg_weights)(image)
    expected = torchvision_features(oracle, image, {layer: INDICES[layer] for layer in layers})
    assert list(features) == sorted(layers, key=INDICES.__getitem__)
    for layer in layers:
        torch.testing.assert_close(features[layer], expected[layer], rtol=1e-4, atol=1e-4)


def test_names_count_as_in_the_paper() -> None:
    assert len(INDICES) == 32
    assert {layer: INDICES[layer] for layer in VGG_INDICES} == VGG_INDICES


@pytest.mark.parametrize(
    "layers",
    [list(INDICES), [name for name in INDICES if "conv" in name], [name for name in INDICES if "relu" in name]],
    ids=["all", "convolutions", "relus"],
)
def test_every_layer_is_torchvisions(
    vgg_weights: Path, oracle: nn.Sequential, image: Tensor, layers: list[str]
) -> None:
    check(vgg_weights, oracle, image, layers)


@pytest.mark.parametrize(
    "layers",
    [
        ["conv1_1"],
        ["relu1_1", "conv1_1"],
        ["conv1_2", "relu2_1"],
        ["conv3_4", "relu3_4"],
        ["relu3_3", "conv3_4", "conv4_1"],
        ["relu5_4", "conv2_2", "relu1_2"],
    ],
    ids="-".join,
)
def test_convolutions_come_before_their_relu(
    vgg_weights: Path, oracle: nn.Sequential, image: Tensor, layers: list[str]
) -> None:
    check(vgg_weights, oracle, image, layers)


def test_convolutions_keep_their_negative_values(vgg_weights: Path, image: Tensor) -> None:
    features = build_extractor("vgg", ["conv2_1", "relu2_1"], vgg_weights)(image)
    assert features["conv2_1"].min() < 0
    torch.testing.assert_close(features["conv2_1"].relu(), features["relu2_1"], rtol=0, atol=0)


def test_default_layers(vgg_weights: Path) -> None:
    loss = CLPLoss("vgg", weights=vgg_weights)
    assert loss.layer_weights == {"relu1_2": 0.5, "relu2_2": 0.5, "relu3_4": 1, "relu4_4": 1, "relu5_4": 1}
    assert CLPLoss("vgg19", weights=vgg_weights).layer_weights == loss.layer_weights


@pytest.mark.parametrize("deepest", ["conv1_1", "relu1_2", "conv3_4", "relu4_1", "relu5_4"])
def test_network_stops_at_the_deepest_layer_used(vgg_weights: Path, deepest: str) -> None:
    loss = CLPLoss("vgg", weights=vgg_weights, layer_weights={"conv1_1": 1, deepest: 1})
    used = _blueprint()[: INDICES[deepest] + 1]
    for kind in (nn.Conv2d, nn.ReLU, nn.MaxPool2d):
        assert sum(isinstance(each, kind) for each in loss.modules()) == sum(isinstance(each, kind) for each in used)


def test_smallest_image(vgg_weights: Path) -> None:
    extractor = build_extractor("vgg", ["relu3_1"], vgg_weights)
    assert extractor(torch.rand(1, 3, 4, 4))["relu3_1"].shape == (1, 256, 1, 1)
    with pytest.raises(ValueError, match=r"at least 4x4 pixels for `vgg19`.*got 3x9.*gt_size"):
        extractor(torch.rand(1, 3, 3, 9))


def test_gradient_passes_the_in_place_relus(vgg_weights: Path, oracle: nn.Sequential, image: Tensor) -> None:
    gradients = []
    for extract in (
        lambda x: build_extractor("vgg", ["conv2_1", "relu3_1"], vgg_weights)(x),
        lambda x: torchvision_features(oracle, x, {name: INDICES[name] for name in ("conv2_1", "relu3_1")}),
    ):
        leaf = image.clone().requires_grad_()
        total = torch.stack([each.square().mean() for each in extract(leaf).values()]).sum()
        gradients.append(torch.autograd.grad(total, leaf)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("recomputes", [False, True])
def test_a_nan_shows_where_the_relu_hides_it(
    vgg_weights: Path, photo_batch: Photos, monkeypatch: pytest.MonkeyPatch, recomputes: bool
) -> None:
    """As with cuDNN's joined convolutions on a GPU; finite images and layers before a ReLU stay as they are."""
    seen: list[str] = []

    def hiding(maps: Tensor, convolution: nn.Conv2d) -> Tensor:
        seen.append("joined")
        return convolution(maps).relu().nan_to_num(0)

    gt, lr = (each[:2] for each in photo_batch)
    sr = (0.5 * gt).requires_grad_()
    layers = {"relu1_2": 1.0, "conv2_1": 1.0, "relu2_1": 1.0, "relu3_1": 1.0}
    loss = CLPLoss("vgg", weights=vgg_weights, layer_weights=layers, checkpoint=recomputes)
    wanted = loss(sr, gt, lr)
    (gradient,) = torch.autograd.grad(wanted, sr)
    monkeypatch.setattr(vgg, "can_join", lambda *_: True)
    monkeypatch.setattr(vgg, "convolution_and_relu", hiding)
    found = loss(sr, gt, lr)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, sr)[0], gradient)
    assert len(seen) == 4 * (3 if recomputes else 2)  # conv1_1, conv1_2, conv2_2, conv3_1
    for place in range(3):
        images = [sr.detach().clone(), gt.clone(), lr.clone()]
        images[place][1, 2, 3, 4] = torch.nan
        assert loss(*images).isnan()


@pytest.mark.parametrize("with_gradient", [True, False])
def test_where_cudnn_refuses_pytorch_takes_over(
    vgg_weights: Path, image: Tensor, monkeypatch: pytest.MonkeyPatch, with_gradient: bool
) -> None:
    def refuse(*_: object) -> Tensor:
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    extractor = build_extractor("vgg", ["relu2_1"], str(vgg_weights))
    wanted = extractor(image)["relu2_1"]
    refused: set[torch.device] = set()
    monkeypatch.setattr(vgg, "can_join", lambda images, _: images.device not in refused)
    monkeypatch.setattr(convolutions, "_REFUSED", refused)
    monkeypatch.setattr(convolutions, "_joined", refuse)
    with torch.set_grad_enabled(with_gradient):
        with pytest.warns(UserWarning, match="on cpu: GET was unable to find an engine.*the same values, in more time"):
            found = extractor(image)["relu2_1"]
        torch.testing.assert_close(found, wanted)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            extractor(image)


def test_out_of_memory_is_not_taken_for_a_refusal(
    vgg_weights: Path, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Tensor:
        raise torch.OutOfMemoryError

    extractor = build_extractor("vgg", ["relu1_1"], str(vgg_weights))
    monkeypatch.setattr(vgg, "can_join", lambda *_: True)
    monkeypatch.setattr(convolutions, "_joined", fail)
    with pytest.raises(torch.OutOfMemoryError):
        extractor(image)
