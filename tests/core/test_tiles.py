"""Tiled feature maps and gradients, against one pass over the whole image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clp_basicsr import build_extractor
from clp_basicsr.extractors import FeatureExtractor
from clp_basicsr.tiles import TiledNetwork, spans

from .oracles import enlarged

Photos = tuple[Tensor, Tensor]


@pytest.mark.parametrize(("length", "size", "overlap"), [(640, 256, 32), (257, 256, 100), (256, 256, 200), (1, 9, 4)])
def test_cores_follow_each_other_and_have_their_surroundings(length: int, size: int, overlap: int) -> None:
    cut = list(spans(length, size, overlap))
    assert [pixel for span in cut for pixel in range(span.core_start, span.core_stop)] == list(range(length))
    for span in cut:
        assert span.stop - span.start <= size
        assert span.core_start - span.start >= min(overlap, span.core_start)
        assert span.stop - span.core_stop >= min(overlap, length - span.core_stop)


def network(name: str, vgg_weights: Path) -> FeatureExtractor:
    if name == "vgg":
        return build_extractor("vgg", ["relu1_2", "relu2_2"], vgg_weights).double()
    return build_extractor(name, ["conv1", "conv2"] if name == "random_convs" else ["block1", "block3"]).double()


@pytest.mark.parametrize(("name", "overlap"), [("vgg", 16), ("random_convs", 3), ("efficientnet_lite0", 40)])
def test_tiles_give_what_one_pass_gives(name: str, overlap: int, vgg_weights: Path, photo_batch: Photos) -> None:
    extract = network(name, vgg_weights)
    image = enlarged(photo_batch, 120, 132).gt.double()
    tiled = TiledNetwork(extract, image, size=96, overlap=overlap)
    assert len(tiled.tiles) > 3
    leaf = image.clone().requires_grad_()
    expected = extract(leaf)
    got = tiled.features(image)
    generator = torch.Generator().manual_seed(0)
    wanted = {layer: torch.randn(each.shape, generator=generator, dtype=each.dtype) for layer, each in got.items()}
    gradients = tiled.gradients(image, wanted)
    for layer, features in expected.items():
        torch.testing.assert_close(got[layer], features.detach(), rtol=1e-9, atol=1e-9)
        (gradient,) = torch.autograd.grad(features, leaf, wanted[layer], retain_graph=True)
        torch.testing.assert_close(gradients[layer], gradient, rtol=1e-9, atol=1e-9)


def test_sizes_that_are_no_multiple_of_a_patch(dino_folder: Path, photo_batch: Photos) -> None:
    extract = build_extractor(str(dino_folder), ["block1", "block2"])
    image = enlarged(photo_batch, 150, 100).gt
    tiled = TiledNetwork(extract, image, size=90, overlap=14)
    features = tiled.features(image)
    assert features["block1"].shape[-2:] == (11, 8)  # of 154 x 112 pixels
    assert tiled.crop(features["block1"]).shape[-2:] == (11, 8)
    gradient = tiled.gradients(image, {layer: torch.ones_like(each) for layer, each in features.items()})["block2"]
    assert gradient.shape == image.shape
    assert gradient.abs().sum(1).min() > 0


def test_gradient_at_the_padding_goes_back_to_what_it_reflects(vgg_weights: Path, photo_batch: Photos) -> None:
    extract = network("vgg", vgg_weights)
    image = enlarged(photo_batch, 121, 131).gt.double()  # one pixel short of a multiple of two, twice
    tiled = TiledNetwork(extract, image, size=96, overlap=16)
    leaf = image.clone().requires_grad_()
    features = extract(F.pad(leaf, (0, 1, 0, 1), mode="reflect"))
    wanted = {layer: torch.ones_like(each) for layer, each in features.items()}
    for layer, gradient in tiled.gradients(image, wanted).items():
        (expected,) = torch.autograd.grad(features[layer], leaf, wanted[layer], retain_graph=True)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_an_image_of_a_tiles_size_is_seen_whole(dino_folder: Path, photo_batch: Photos) -> None:
    extract = build_extractor(str(dino_folder), ["block2"])
    image = photo_batch[0][:1, :, :60, :100]
    tiled = TiledNetwork(extract, image, size=100)
    assert len(tiled.tiles) == 1
    assert torch.equal(tiled.features(image)["block2"], extract(image)["block2"])


def test_tiles_smaller_than_their_overlap() -> None:
    with pytest.raises(ValueError, match=r"`tile` must be more than 192 pixels"):
        TiledNetwork(build_extractor("random_convs"), torch.zeros(1, 3, 200, 200), size=128)


def test_a_network_whose_maps_do_not_divide_the_image() -> None:
    def extract(images: Tensor) -> dict[str, Tensor]:
        return {"valid": images[..., 1:-1, 1:-1]}

    with pytest.raises(ValueError, match=r"divide them evenly.*222"):
        TiledNetwork(extract, torch.zeros(1, 3, 200, 200), size=100)
