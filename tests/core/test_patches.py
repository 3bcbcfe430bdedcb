"""Patch embeddings as matrix products, against PyTorch's convolution."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from clp_basicsr import CLPLoss
from clp_basicsr.extractors.patches import multiply_patches

from .oracles import crop

Photos = tuple[Tensor, Tensor]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def value_and_gradient(run: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    maps = run(images)
    numbers = torch.linspace(-1, 1, maps.numel(), dtype=maps.dtype).view(maps.shape)
    return maps, torch.autograd.grad((maps * numbers).sum(), images)[0]


@given(
    patch=st.tuples(st.integers(8, 11), st.integers(8, 11)),
    counts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    left=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    bias=st.booleans(),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
)
def test_values_and_gradient_are_the_convolutions(
    patch: tuple[int, int],
    counts: tuple[int, int],
    left: tuple[int, int],
    bias: bool,
    layouts: tuple[torch.memory_format, torch.memory_format],
) -> None:
    """Rows and columns that fill no patch are dropped, and have no gradient."""
    torch.manual_seed(0)
    height, width = (size * count + more for size, count, more in zip(patch, counts, left))
    images = torch.rand(2, 3, height, width, dtype=torch.float64).to(memory_format=layouts[0])
    plain = nn.Conv2d(3, 4, patch, patch, bias=bias).double().to(memory_format=layouts[1])
    ours = multiply_patches(nn.Sequential(pickle.loads(pickle.dumps(plain))))
    assert type(ours[0]) is not nn.Conv2d
    expected = value_and_gradient(lambda each: F.conv2d(each, plain.weight, plain.bias, stride=patch), images)
    torch.testing.assert_close(value_and_gradient(ours, images), expected)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(3, 4, 9, stride=8),
        nn.Conv2d(3, 4, 8, stride=9),
        nn.Conv2d(3, 4, 8, stride=8, padding=1),
        nn.Conv2d(3, 4, 8, stride=8, padding="valid", dilation=2),
        nn.Conv2d(3, 6, 8, stride=8, groups=3),
        nn.Conv2d(4, 4, 8, stride=8),
        nn.Conv2d(3, 4, 4, stride=4),
    ],
    ids=str,
)
def test_all_others_stay_convolutions(convolution: nn.Conv2d) -> None:
    assert type(multiply_patches(nn.Sequential(convolution))[0]) is nn.Conv2d


class Convolutions(TorchDispatchMode):
    """Counts them."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        self.count += "convolution" in function.name()
        return function(*arguments, **(keywords or {}))


def same(loss: CLPLoss) -> CLPLoss:
    return loss


def again(loss: CLPLoss) -> CLPLoss:
    copied: CLPLoss = pickle.loads(pickle.dumps(loss))
    return copied


@pytest.mark.parametrize("made", [same, again])
@pytest.mark.parametrize("network", ["dinov2", "dinov2_reg", "dinov3", "timm"])
def test_a_transformer_has_no_convolution(
    network: str,
    made: Callable[[CLPLoss], CLPLoss],
    photo_batch: Photos,
    dino_folder: Path,
    dino_reg_folder: Path,
    dinov3_folder: Path,
    package_weights: dict[str, Path],
) -> None:
    folders = {"dinov2": dino_folder, "dinov2_reg": dino_reg_folder, "dinov3": dinov3_folder}
    if network == "timm":
        loss = CLPLoss("timm:test_vit3", weights=package_weights["timm:test_vit3"])
    else:
        loss = CLPLoss(str(folders[network]))
    images = crop(photo_batch, 1, 32)
    with Convolutions() as seen:
        made(loss)(*images).backward()
    assert seen.count == 0


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < (2, 8), reason="transformers' decorators break the graph with this torch")
def test_a_third_size_compiles_nothing(dino_folder: Path, photo_batch: Photos) -> None:
    """By Inductor, which takes the size of a convolution for constant."""
    torch._dynamo.reset()
    loss, compiled = (CLPLoss(str(dino_folder), layer_weights={"block1": 1.0}, compile=each) for each in (False, True))
    for size in (32, 64, 40, 80):
        images = crop(photo_batch, 2, size)
        with torch.compiler.set_stance("fail_on_recompile" if size in (40, 80) else "default"):
            seen, expected = (torch.autograd.grad(each(*images), images.sr)[0] for each in (compiled, loss))
        torch.testing.assert_close(seen, expected, rtol=1e-3, atol=1e-7)
