"""torchvision's networks by node name: against its own modules' outputs, and against our VGG19."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import get_graph_node_names

from clp_basicsr import CLPLoss, build_extractor
from clp_basicsr.extractors import FeatureExtractor

from .oracles import VGG_INDICES, crop, normalised

Photos = tuple[Tensor, Tensor]
NAMES = {f"features.{index}": layer for layer, index in VGG_INDICES.items()} | {"features.7": "conv2_2"}

# Modules whose outputs are maps; with a number, the call that counts (ResNet's ReLUs are called twice).
MODULES: dict[str, dict[str, tuple[str, int]]] = {
    "resnet18": {
        "conv1": ("conv1", 0),
        "bn1": ("bn1", 0),
        "layer1.0.bn2": ("layer1.0.bn2", 0),
        "layer1.0.relu": ("layer1.0.relu", 0),
        "layer1.0.relu_1": ("layer1.0.relu", 1),
        "layer1": ("layer1", 0),
        "layer2.0.downsample": ("layer2.0.downsample", 0),
        "layer3": ("layer3", 0),
    },
    "mobilenet_v3_small": {each: (each, 0) for each in ("features.0", "features.1", "features.4.block.0", "features")},
    "swin_t": {each: (each, 0) for each in ("features.1", "features.2", "features.3.1")},
    "densenet121": {each: (each, 0) for each in ("features.norm0", "features.transition1.relu", "features.norm5")},
    "inception_v3": {each: (each, 0) for each in ("Conv2d_1a_3x3.bn", "Mixed_5b", "Mixed_6a")},
}
CHANNELS_LAST = ("swin_t",)


def untrained(name: str, layers: Sequence[str] | None = None, **keywords: Any) -> FeatureExtractor:
    with pytest.warns(UserWarning, match="untrained"):
        return build_extractor(f"torchvision:{name}", layers, "random", **keywords)


def reference(name: str) -> nn.Module:
    """The same seed, torchvision's own network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options: dict[str, Any] = {"init_weights": True} if name == "inception_v3" else {}
        network: nn.Module = torchvision.models.get_model(name, **options)
    return network.eval().requires_grad_(False)


def hooked(network: nn.Module, images: Tensor, modules: dict[str, tuple[str, int]]) -> dict[str, Tensor]:
    """What modules return on the way to a class, copied before anything can overwrite it."""
    seen: dict[str, list[Tensor]] = {module: [] for module, _ in modules.values()}
    for module in seen:
        network.get_submodule(module).register_forward_hook(
            lambda *each, module=module: seen[module].append(each[2].clone())
        )
    network(images)
    return {layer: seen[module][call] for layer, (module, call) in modules.items()}


@pytest.mark.parametrize("name", MODULES)
def test_nodes_are_the_modules_outputs(name: str, photo_batch: Photos) -> None:
    modules, images = MODULES[name], photo_batch[0][:1, :, :128, :96]
    extractor = untrained(name, list(modules))
    # Inception was trained on another normalisation, and drops the last row and column of an even size.
    seen = images[..., :127, :95] if name == "inception_v3" else images
    scaled = (seen - 0.5) / 0.5 if name == "inception_v3" else normalised(seen)
    expected = hooked(reference(name), scaled, modules)
    features = extractor(seen)
    assert set(features) == set(modules)
    for layer, tensor in features.items():
        whole = expected[layer].permute(0, 3, 1, 2) if name in CHANNELS_LAST else expected[layer]
        torch.testing.assert_close(tensor, whole, rtol=1e-4, atol=1e-5)


def test_vgg19_is_our_vgg19(vgg_weights: Path, photo_batch: Photos) -> None:
    """Two ways to the same numbers, at a size that no pooling divides."""
    images = photo_batch[0][:2, :, :75, :101]
    # In float64: rounding, which differs by memory layout, moves a maximum or a ReLU's edge now and then.
    theirs = build_extractor("torchvision:vgg19", list(NAMES), vgg_weights).double()
    ours = build_extractor("vgg", list(NAMES.values()), vgg_weights).double()
    assert list(theirs.layers) == sorted(NAMES, key=lambda layer: int(layer.split(".")[1]))
    assert list(theirs.default_layer_weights) == [f"features.{index}" for index in VGG_INDICES.values()]
    assert theirs.minimum_size == ours.minimum_size == 16
    gradients = []
    leaf = images.double().requires_grad_()
    given, expected = theirs(leaf), ours(leaf)
    for layer, tensor in given.items():
        torch.testing.assert_close(tensor, expected[NAMES[layer]], rtol=1e-4, atol=1e-5)
    for features in (given, expected):
        total = torch.stack([each.square().mean() for each in features.values()]).sum()
        gradients.append(torch.autograd.grad(total, leaf)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "layers", "strides"),
    [
        ("resnet18", ["relu", "layer1", "layer2", "layer3", "layer4"], [2, 4, 8, 16, 32]),
        ("mobilenet_v3_small", [f"features.{index}" for index in (0, 1, 3, 8, 12)], [2, 4, 8, 16, 32]),
        ("regnet_x_400mf", ["stem", *(f"trunk_output.block{index}" for index in range(1, 5))], [2, 4, 8, 16, 32]),
    ],
)
def test_default_layers_are_the_last_of_each_stride(
    name: str, layers: list[str], strides: list[int], photo_batch: Photos
) -> None:
    extractor = untrained(name)
    assert extractor.default_layer_weights == dict.fromkeys(layers, 1.0)
    features = extractor(photo_batch[0][:1])
    assert [128 // tensor.shape[-1] for tensor in features.values()] == strides
    assert all(tensor.dim() == 4 for tensor in features.values())


def test_only_what_is_needed_is_kept() -> None:
    extractor = untrained("resnet18", ["layer1.1", "conv1"])
    assert extractor.layers == ("conv1", "layer1.1")
    convolutions = [module for module in extractor.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 5
    assert sum(each.numel() for each in extractor.buffers()) < 160_000


def test_a_module_and_its_last_node_can_both_be_asked_for(photo_batch: Photos) -> None:
    features = untrained("resnet18", ["layer1", "layer1.1.relu_1", "relu"])(photo_batch[0][:1])
    assert torch.equal(features["layer1"], features["layer1.1.relu_1"])
    assert not torch.equal(features["layer1"], features["relu"])


@pytest.mark.parametrize("name", ["squeezenet1_1", "alexnet", "swin_t", "resnet18"])
@pytest.mark.parametrize("size", [(64, 64), (67, 103)], ids=str)
def test_no_pixel_is_dropped(name: str, size: tuple[int, int], photo_batch: Photos) -> None:
    """Among them: patches of 4, a first convolution that leaves the last row out, a pooling that does."""
    images = photo_batch[0][:1, :, : size[0], : size[1]].clone().requires_grad_()
    layers = {"alexnet": ["features.2"], "swin_t": ["features.0", "features.1"]}.get(name)
    features = untrained(name, layers)(images)
    (gradient,) = torch.autograd.grad(torch.stack([each.square().mean() for each in features.values()]).sum(), images)
    assert (gradient.abs().sum(1) > 0).all()


def test_smallest_image() -> None:
    extractor = untrained("resnet18", ["layer3"])
    assert extractor(torch.rand(1, 3, 16, 17))["layer3"].shape == (1, 256, 1, 2)
    with pytest.raises(ValueError, match=r"at least 16x16 pixels for `torchvision:resnet18`"):
        extractor(torch.rand(1, 3, 15, 40))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("layer5", "Did you mean 'layer"),
        ("layer2.0.relu_3", "Did you mean 'layer2.0.relu"),
        ("flatten", "['relu', 'layer1', 'layer2', 'layer3', 'layer4'] and"),
        ("avgpool", "must be among"),
    ],
)
@pytest.mark.filterwarnings("ignore:weights='random'")
def test_unknown_layer(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"`torchvision:resnet18` must be among") as caught:
        build_extractor("torchvision:resnet18", [given], "random")
    assert repr(given) in str(caught.value)
    assert said in str(caught.value)


def test_every_name_that_is_accepted_is_one_of_torchvisions(photo_batch: Photos) -> None:
    nodes = get_graph_node_names(reference("squeezenet1_1"))[1][1:]
    maps = [node for node in nodes if not node.startswith(("classifier.3", "flatten"))]
    features = untrained("squeezenet1_1", maps)(photo_batch[0][:1])
    assert list(features) == maps


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("torchvision:resnet5", "Did you mean 'torchvision:resnet50'?"),
        ("torchvision:", "torchvision.models.list_models"),
        ("torchvision:fcn_resnet50", "Detection, segmentation"),
        ("torchvision:fasterrcnn_resnet50_fpn", "Detection, segmentation"),
        ("torchvision:quantized_resnet18", "quantised networks cannot"),
        ("torchvision:r3d_18", "video"),
        ("torchvision:vit_b_16", "one size only"),
        ("torchvison:resnet50", "'torchvision:NAME'"),
    ],
)
@pytest.mark.filterwarnings("ignore:weights='random'")
def test_networks_that_cannot_be_used(model: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"`model` must") as caught:
        build_extractor(model, None, "random")
    assert repr(model) in str(caught.value)
    assert said in str(caught.value)


def test_in_a_loss(photo_batch: Photos) -> None:
    with pytest.warns(UserWarning, match="untrained"):
        loss = CLPLoss("torchvision:resnet18", weights="random", layer_weights={"layer2": 0.5, "relu": 1, "layer4": 0})
    assert loss.layer_weights == {"relu": 1, "layer2": 0.5}
    sr, gt, lr = crop(photo_batch, 1, 64)
    assert loss(gt, gt, lr).item() < 1e-3 < loss(sr, gt, lr).item()


def test_batch_norm_never_updates(photo_batch: Photos) -> None:
    with pytest.warns(UserWarning, match="untrained"):
        loss = CLPLoss("torchvision:resnet18", weights="random", layer_weights={"layer2": 1}).train()
    norms = [module for module in loss.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    gt, lr = photo_batch
    values = {loss(gt * 0.9, gt, lr).item() for _ in range(2)}
    after = [norm.running_mean for norm in norms if norm.running_mean is not None]
    assert len(before) > 5
    assert all(torch.equal(*pair) for pair in zip(before, after))
    assert len(values) == 1
