"""VGG16 in another framework's conventions, against that framework's formula on torch's own functions."""

import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import vgg16

from benchmarks import published_vgg16
from clp_basicsr.extractors import build_extractor
from clp_basicsr.extractors.base import IMAGENET_MEAN, IMAGENET_STD

BGR_MEAN = (103.939, 116.779, 123.68)  # keras.applications.imagenet_utils.preprocess_input, mode "caffe"


def of_keras() -> dict[str, Tensor]:
    """Return tensors of the right names and shapes, with the known values in their places."""
    torch.manual_seed(0)
    convolutions = [each for each in vgg16(weights=None).features if isinstance(each, torch.nn.Conv2d)]
    names = [
        f"block{block}_conv{number}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for number in range(1, count + 1)
    ]
    tensors = {}
    for name, each in zip(names, convolutions, strict=True):
        tensors[f"{name}.kernel"] = torch.randn_like(each.weight) / each.weight[0].numel() ** 0.5
        assert each.bias is not None
        tensors[f"{name}.bias"] = torch.rand_like(each.bias)
    for (name, what, place), value in published_vgg16.KNOWN.items():
        tensors[f"{name}.{what}"][place] = value
    return tensors


def test_it_is_the_same_network_on_torchvisions_images(tmp_path: Path) -> None:
    tensors, path = of_keras(), tmp_path / "vgg16.safetensors"
    published_vgg16.write(published_vgg16.as_torchvision(tensors), path)
    images = torch.rand(2, 3, 64, 64)
    maps = build_extractor("torchvision:vgg16", ["features.3", "features.8"], path)(images)

    expected = images.flip(1) * 255 - torch.tensor(BGR_MEAN).view(1, 3, 1, 1)
    for name in ("block1_conv1", "block1_conv2"):
        expected = F.relu(F.conv2d(expected, tensors[f"{name}.kernel"], tensors[f"{name}.bias"], padding=1))
    inside = (..., slice(2, -2), slice(2, -2))  # the border of zeros stands for another mean
    torch.testing.assert_close(maps["features.3"][inside], expected[inside], rtol=1e-4, atol=1e-2)
    assert (maps["features.3"] - expected).abs().max() < 0.02 * expected.max()
    expected = F.max_pool2d(expected, 2)
    for name in ("block2_conv1", "block2_conv2"):
        expected = F.relu(F.conv2d(expected, tensors[f"{name}.kernel"], tensors[f"{name}.bias"], padding=1))
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(maps["features.8"][inside], expected[inside], rtol=1e-4, atol=1e-2)


def test_the_mean_is_that_of_torchvisions_images() -> None:
    kernel, bias = torch.randn(4, 3, 3, 3), torch.randn(4)
    of_torchvision = published_vgg16.for_torchvisions_images(kernel, bias)
    grey = torch.full((1, 3, 3, 3), 0.7)
    normalised = (grey - torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)) / torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    less_mean = grey * 255 - torch.tensor(BGR_MEAN).view(1, 3, 1, 1)
    torch.testing.assert_close(F.conv2d(normalised, *of_torchvision), F.conv2d(less_mean, kernel, bias))


@pytest.mark.parametrize("known", list(published_vgg16.KNOWN), ids=str)
def test_another_networks_numbers_are_refused(known: tuple[str, str, tuple[int, ...]]) -> None:
    tensors = of_keras()
    published_vgg16.check(tensors)
    name, what, place = known
    tensors[f"{name}.{what}"][place] += 1e-4
    with pytest.raises(ValueError, match=f"'{name}' must be VGG16's as published"):
        published_vgg16.check(tensors)


def test_the_file_in_the_package(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import numpy_helper

    tensors = of_keras()
    node = {"kernel": "convolution/ReadVariableOp:0", "bias": "Squeeze:0"}
    initializers = [
        numpy_helper.from_array(tensor.numpy(), f"functional_1/{layer}_1/{node[what]}")
        for (layer, what), tensor in ((name.split("."), tensor) for name, tensor in tensors.items())
    ]
    others = [numpy_helper.from_array(torch.ones(3).numpy(), "functional_1/dense_1_2/BiasAdd/ReadVariableOp:0")]
    graph = onnx.helper.make_graph([], "vgg16", [], [], initializer=[*initializers, *others])
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(published_vgg16._FILE, onnx.helper.make_model(graph).SerializeToString())
    read = published_vgg16.read(tmp_path / "a.whl")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor)
