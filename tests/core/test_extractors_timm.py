"""timm's networks by the names in their feature_info: against timm's own whole networks."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clp_basicsr import CLPLoss, build_extractor
from clp_basicsr.extractors import FeatureExtractor

from .oracles import crop

timm = pytest.importorskip("timm")

Photos = tuple[Tensor, Tensor]
HALF = (0.5, 0.5, 0.5)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def untrained(name: str, layers: Sequence[str] | None = None, **keywords: Any) -> FeatureExtractor:
    with pytest.warns(UserWarning, match="untrained"):
        return build_extractor(f"timm:{name}", layers, "random", **keywords)


def saved(folder: Path, name: str) -> tuple[Path, nn.Module]:
    """A whole network of timm and a file of its weights, none of them as initialised."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network: nn.Module = timm.create_model(name)
        for parameter in network.parameters():
            parameter.detach().add_(0.05 * torch.randn(parameter.shape))
    torch.save(network.state_dict(), folder / "weights.pth")
    return folder / "weights.pth", network.eval().requires_grad_(False)


def normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


# Each with the mean and standard deviation that timm publishes for it.
CONVOLUTIONAL = {
    "test_resnet": (["act1", "layer1", "layer4"], (HALF, HALF), False),
    "test_byobnet": (["stem", "stages.1"], IMAGENET, False),
    "test_convnext2": (["stages.0", "stages.2"], (HALF, HALF), False),
    "test_mambaout": (["stages.0", "stages.1"], IMAGENET, True),  # channels last
    "mobilenetv3_small_050": (["bn1", "blocks.0", "blocks.3"], (HALF, HALF), False),
}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_layers_are_the_modules_outputs(tmp_path: Path, name: str, photo_batch: Photos) -> None:
    layers, _, channels_last = CONVOLUTIONAL[name]
    path, whole = saved(tmp_path, name)
    seen: dict[str, Tensor] = {}
    for layer in layers:
        whole.get_submodule(layer).register_forward_hook(
            lambda *each, layer=layer: seen.setdefault(layer, each[2].clone())
        )
    images = photo_batch[0][:1, :, :96, :64]
    configuration: Any = timm.create_model(name).pretrained_cfg
    whole(normalised(images, configuration["mean"], configuration["std"]))
    features = build_extractor(f"timm:{name}", layers, path)(images)
    assert list(features) == layers
    for layer, tensor in features.items():
        expected = seen[layer].permute(0, 3, 1, 2) if channels_last else seen[layer]
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size"), [("test_vit", (160, 160)), ("test_vit3", (160, 160)), ("test_vit2", (96, 80))]
)
def test_blocks_of_vision_transformers_are_timms_intermediates(
    tmp_path: Path, name: str, size: tuple[int, int], photo_batch: Photos
) -> None:
    path, _ = saved(tmp_path, name)
    whole = timm.create_model(name, dynamic_img_size=True)
    whole.load_state_dict(torch.load(path, weights_only=True))
    images = F.interpolate(photo_batch[0][:1], size=size)
    layers = ["blocks.0", "blocks.3"]
    features = build_extractor(f"timm:{name}", layers, path)(images)
    expected = whole.eval().forward_intermediates(
        normalised(images, HALF, HALF), indices=[0, 3], intermediates_only=True
    )
    for tensor, each in zip(features.values(), expected):
        torch.testing.assert_close(tensor, each.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "mean", "std"), [("test_resnet", HALF, HALF), ("test_byobnet", *IMAGENET), ("test_vit", HALF, HALF)]
)
def test_images_are_normalised_as_in_its_training(
    name: str, mean: Sequence[float], std: Sequence[float], photo_batch: Photos
) -> None:
    images = photo_batch[0][:1, :, :64, :64]
    normal, plain = (untrained(name, use_input_norm=norm) for norm in (True, False))
    for first, second in zip(normal(images).values(), plain(normalised(images, mean, std)).values()):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("test_resnet", ["act1", "layer1", "layer2", "layer3", "layer4"]),
        ("test_convnext", ["stages.0", "stages.1", "stages.2", "stages.3"]),
        ("test_vit", ["blocks.3", "blocks.4", "blocks.5"]),
    ],
)
def test_default_layers_are_timms(name: str, layers: list[str]) -> None:
    extractor = untrained(name)
    assert list(extractor.layers) == layers == timm.create_model(name, features_only=True).feature_info.module_name()
    assert extractor.default_layer_weights == dict.fromkeys(layers, 1.0)


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_convnext", "test_vit3", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224"]
)
def test_images_of_any_size_without_a_dropped_pixel(name: str, photo_batch: Photos) -> None:
    """Patches of 4, 14 and 16, windows of 7, and networks that timm builds for one size."""
    layers = {"swin_tiny_patch4_window7_224": ["layers.0", "layers.1"], "eva02_tiny_patch14_224": ["blocks.1"]}
    extractor = untrained(name, layers.get(name))
    for size in ((64, 64), (67, 103)):
        images = photo_batch[0][:1, :, : size[0], : size[1]].clone().requires_grad_()
        total = torch.stack([each.square().mean() for each in extractor(images).values()]).sum()
        (gradient,) = torch.autograd.grad(total, images)
        assert (gradient.abs().sum(1) > 0).all()


def test_branches_that_meet_again_do_so_at_every_size(photo_batch: Photos) -> None:
    """HRNet computes its deepest branch whatever is asked for, and that has a stride of 32."""
    features = untrained("hrnet_w18_small", ["stem"])(photo_batch[0][:1, :, :70, :90])
    assert features["stem"].shape[-2:] == (48, 48)


def test_only_what_is_needed_is_kept() -> None:
    counts = [sum(each.numel() for each in untrained("test_resnet", [layer]).buffers()) for layer in ("act1", "layer4")]
    assert counts[0] * 20 < counts[1]
    blocks = [module for module in untrained("test_vit", ["blocks.1"]).modules() if type(module).__name__ == "Block"]
    assert len(blocks) == 2


def test_smallest_image() -> None:
    extractor = untrained("test_vit", ["blocks.0"])
    assert extractor(torch.rand(1, 3, 16, 17))["blocks.0"].shape == (1, 64, 1, 2)
    with pytest.raises(ValueError, match=r"at least 16x16 pixels for `timm:test_vit`"):
        extractor(torch.rand(1, 3, 15, 40))


@pytest.mark.parametrize(("given", "near"), [("layer5", "layer"), ("stages_0", None), ("act", "act1")])
@pytest.mark.filterwarnings("ignore:weights='random'")
def test_unknown_layer(given: str, near: str | None) -> None:
    with pytest.raises(ValueError, match=r"`timm:test_resnet` must be among \['act1'") as caught:
        build_extractor("timm:test_resnet", [given], "random")
    assert repr(given) in str(caught.value)
    assert near is None or f"Did you mean '{near}" in str(caught.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("timm:resnet5", "Did you mean 'timm:resnet50'?"),
        ("timm:", "timm.list_models()"),
        ("timm:resnet18.a2", "Did you mean 'timm:resnet18.a2_in1k'?"),
        ("timm:test_maxvit", "any size"),
        ("timm:mixer_s16_224", "any size"),
    ],
)
@pytest.mark.filterwarnings("ignore:weights='random'")
def test_networks_that_cannot_be_used(model: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"`model` must") as caught:
        build_extractor(model, None, "random")
    assert repr(model) in str(caught.value)
    assert said in str(caught.value)


def test_timm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"`timm:resnet18` needs the package 'timm'.*pip install timm"):
        build_extractor("timm:resnet18")


def test_in_a_loss(photo_batch: Photos) -> None:
    with pytest.warns(UserWarning, match="untrained"):
        loss = CLPLoss("timm:test_resnet", weights="random", layer_weights={"layer2": 0.5, "act1": 1, "layer4": 0})
    assert loss.layer_weights == {"act1": 1, "layer2": 0.5}
    sr, gt, lr = crop(photo_batch, 1, 64)
    assert loss(gt, gt, lr).item() < 1e-3 < loss(sr, gt, lr).item()
