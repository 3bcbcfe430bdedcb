"""Weights of torchvision's and timm's networks: files, published ones without a network, other networks'."""

import logging
import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor
from torchvision.models import ResNet18_Weights

from clp_basicsr import CLPLoss, build_extractor

from .oracles import Images, crop

Photos = tuple[Tensor, Tensor]
SQUEEZENET, RESNET, VIT = NAMES = ("torchvision:squeezenet1_1", "timm:test_resnet", "timm:test_vit3")
LAYERS = {SQUEEZENET: {"features.3": 1}, RESNET: {"layer1": 1}, VIT: {"blocks.1": 1}}


@pytest.fixture
def images(photo_batch: Photos) -> Images:
    return crop(photo_batch, 1, 32)


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_of_a_file_give_the_same(
    tmp_path: Path, package_weights: dict[str, Path], images: Images, name: str
) -> None:
    state = torch.load(package_weights[name], weights_only=True)
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    values = [
        CLPLoss(name, weights=path, layer_weights=LAYERS[name])(*images)
        for path in (package_weights[name], str(tmp_path / "a.safetensors"))
    ]
    assert torch.equal(*values)


def test_published_weights_of_torchvision(
    package_weights: dict[str, Path], images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = torchvision.models.SqueezeNet1_1_Weights
    state = torch.load(package_weights[SQUEEZENET], weights_only=True)
    monkeypatch.setattr(published, "get_state_dict", lambda self, **_: state if self is published.DEFAULT else {})
    values = [
        CLPLoss(SQUEEZENET, weights=weights, layer_weights=LAYERS[SQUEEZENET])(*images)
        for weights in (None, package_weights[SQUEEZENET])
    ]
    assert torch.equal(*values)


def test_published_weights_of_timm(
    package_weights: dict[str, Path], images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm's own loading of them, with the hub's client replaced by the file."""
    state = torch.load(package_weights[RESNET], weights_only=True)
    asked: list[str] = []
    monkeypatch.setattr(
        timm.models._builder, "load_state_dict_from_hf", lambda hub_id, **_: asked.append(hub_id) or dict(state)
    )
    values = [
        CLPLoss(RESNET, weights=weights, layer_weights=LAYERS[RESNET])(*images)
        for weights in (None, package_weights[RESNET])
    ]
    assert torch.equal(*values)
    assert asked == ["timm/test_resnet.r160_in1k"]


def test_densenets_old_names(tmp_path: Path) -> None:
    """Its published files say norm.1 where the network says norm1."""
    with torch.random.fork_rng(devices=[]):
        state = torchvision.models.densenet121().state_dict()
    old = {name.replace("norm1", "norm.1").replace("conv2", "conv.2"): tensor for name, tensor in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    extractor = build_extractor("torchvision:densenet121", ["features.denseblock1"], tmp_path / "old.pth")
    loaded = dict(extractor.network.named_buffers())
    for name in ("features.denseblock1.denselayer1.norm1.weight", "features.denseblock1.denselayer2.conv2.weight"):
        assert torch.equal(loaded[name], state[name])


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("torchvision:densenet121", "features.norm0"),
        ("torchvision:vgg11_bn", "features.1"),
        ("timm:test_resnet", "layer1"),
    ],
)
def test_files_from_before_batch_norms_counted(tmp_path: Path, name: str, layer: str) -> None:
    """As those that torchvision publishes for its DenseNets and VGGs."""
    package, _, model = name.partition(":")
    network = timm.create_model(model) if package == "timm" else torchvision.models.get_model(model)
    state = network.state_dict()
    old = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    features = []
    for each in (state, old):
        torch.save(each, tmp_path / "weights.pth")
        features.append(
            build_extractor(name, [layer], tmp_path / "weights.pth")(torch.rand(1, 3, 64, 64).fill_(0.3))[layer]
        )
    assert torch.equal(*features)


def test_a_classifier_of_other_classes_does_not_matter(tmp_path: Path, package_weights: dict[str, Path]) -> None:
    for name, head in ((SQUEEZENET, "classifier.1"), (RESNET, "fc")):
        state = torch.load(package_weights[name], weights_only=True)
        state |= {f"{head}.weight": torch.zeros(7, 3), f"{head}.bias": torch.zeros(7)}
        torch.save(state, tmp_path / "tuned.pth")
        CLPLoss(name, weights=tmp_path / "tuned.pth", layer_weights=LAYERS[name])


@pytest.mark.parametrize(
    ("name", "layer", "other"),
    [
        ("torchvision:resnet18", "layer1", "resnet34"),
        ("torchvision:resnet34", "layer1", "resnet18"),
        ("torchvision:squeezenet1_1", "features.3", "squeezenet1_0"),
        ("timm:resnet18", "layer1", "resnet34"),
        ("timm:resnet34", "layer1", "resnet18"),
        ("timm:test_vit", "blocks.0", "test_vit2"),
    ],
)
def test_weights_of_another_network(tmp_path: Path, name: str, layer: str, other: str) -> None:
    network = timm.create_model(other) if name.startswith("timm") else torchvision.models.get_model(other)
    torch.save(network.state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"must be those of `{name}`") as caught:
        build_extractor(name, [layer], tmp_path / "other.pth")
    assert str(tmp_path / "other.pth") in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_no_weights(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"`weights` must name a weights file"):
        CLPLoss(name, weights=tmp_path / "no.pth")
    (tmp_path / "bad.pth").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"damaged") as caught:
        CLPLoss(name, weights=tmp_path / "bad.pth")
    assert str(tmp_path / "bad.pth") in str(caught.value)


def test_no_network_for_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(FileNotFoundError, match=r"`torchvision:resnet18` could not be downloaded") as caught:
        CLPLoss("torchvision:resnet18")
    url = ResNet18_Weights.DEFAULT.url
    for part in (url, str(tmp_path / "checkpoints" / url.rsplit("/", 1)[-1]), "weights=", "no route to host"):
        assert part in str(caught.value)


def test_no_network_for_timm() -> None:
    with pytest.raises(FileNotFoundError, match=r"`timm:test_resnet` could not be had") as caught:
        CLPLoss("timm:test_resnet")
    for part in ("hf download timm/test_resnet.r160_in1k model.safetensors", "weights='path/to/", "cache"):
        assert part in str(caught.value)


def test_timm_prints_nothing_of_a_file(package_weights: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        CLPLoss(RESNET, weights=package_weights[RESNET])
    assert not caplog.records
