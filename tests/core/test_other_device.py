"""As on a GPU, without one: everything stays on the images' device, and nothing waits for a value.

torch's fake tensors have a shape, a type and a device, but no values: what looks at a value fails, and so does an
operation on tensors of two devices. "lazy" is a device whose backward pass takes no hardware.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clp_basicsr import CLPLoss
from clp_basicsr.bench.counting import without_values

DEVICE = "lazy"
RANDOM = {"model": "random_convs"}
SETTINGS: list[dict[str, Any]] = [
    *({"criterion": criterion} for criterion in ("triplet", "ratio", "batch_ratio", "infonce", "directional")),
    *({"distance": distance} for distance in ("l1", "cosine")),
    {"margin": 1.0, "swap": True, "reduction": "nonzero"},
    {"margin": 1.0, "soft": True, "align_corners": True, "invert_equal_pixels": True},
    {"negatives": ["lr", {"type": "blur", "count": 2}, "degraded", "batch"]},
    {"auto_weight": 0.1, "warmup_iter": 3},
    {"chunk": 1},
    {"range_norm": True, "input_scale": 255},
]


class Transfers(TorchDispatchMode):
    """Notes every copy between devices for which one of them has to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        returned = function(*arguments, **(keywords or {}))
        tensors = [each for each in tree_leaves((arguments, keywords, returned)) if isinstance(each, Tensor)]
        # A CPU number of no dimensions is handed over with the operation itself, as a Python number is.
        devices = {each.device for each in tensors if each.dim() or "copy" in str(function)}
        if len(devices) > 1 and not (keywords or {}).get("non_blocking"):
            self.noted.append(str(function))
        return returned


@pytest.fixture
def fake_device(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    # These know real devices only.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    return FakeTensorMode()


def moved(loss: CLPLoss, mode: FakeTensorMode) -> CLPLoss:
    without_values(loss, mode)
    with mode:
        return loss.to(DEVICE)


def transfers(keywords: Mapping[str, Any], mode: FakeTensorMode) -> list[str]:
    """Two training steps; the first also measures."""
    loss = moved(CLPLoss(**keywords), mode)
    with mode:
        sr = torch.rand(2, 3, 64, 64, device=DEVICE, requires_grad=True)
        target, lr = torch.rand(2, 3, 64, 64, device=DEVICE), torch.rand(2, 3, 16, 16, device=DEVICE)
        with Transfers() as seen:
            for _ in range(2):
                value = loss(sr, target, lr)
                value.backward()
        assert value.device.type == DEVICE
        assert sr.grad is not None
        assert loss.summary is not None
        assert {each.device.type for each in loss.summary} == {DEVICE}
        assert loss.diagnostics is not None
        assert loss.diagnostics.whole.device.type == DEVICE
    return seen.noted


@pytest.mark.parametrize("keywords", SETTINGS, ids=str)
def test_every_setting_stays_on_the_device(keywords: dict[str, Any], fake_device: FakeTensorMode) -> None:
    assert transfers({**RANDOM, **keywords}, fake_device) == []


@pytest.mark.parametrize("model", ["vgg", "dinov2_small", "dinov2_small_reg", "dinov3_small", "torchvision:resnet18"])
@pytest.mark.filterwarnings("ignore:weights='random'")
def test_every_network_stays_on_the_device(model: str, fake_device: FakeTensorMode) -> None:
    assert transfers({"model": model, "weights": "random"}, fake_device) == []


def test_networks_of_packages_stay_on_the_device(fake_device: FakeTensorMode, package_weights: dict[str, Path]) -> None:
    for name in ("timm:test_resnet", "timm:test_vit3"):
        assert transfers({"model": name, "weights": package_weights[name]}, fake_device) == []
    assert transfers({"model": "efficientnet_lite0"}, fake_device) == []


def test_what_would_wait_is_noticed(fake_device: FakeTensorMode) -> None:
    with fake_device:
        image = torch.rand(2, device=DEVICE)
        with pytest.raises(DataDependentOutputException):
            image.sum().item()
        for wait in (lambda: image.new_tensor(1.0), lambda: torch.rand(2).to(DEVICE), lambda: image.cpu()):
            with Transfers() as seen:
                wait()
            assert seen.noted
        with Transfers() as seen:
            torch.rand(2).to(DEVICE, non_blocking=True)
            torch.where(image > 0, image, 0.0)
        assert not seen.noted


class NoDoubles(TorchDispatchMode):
    """As Apple's GPUs, which have no float64."""

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        returned = function(*arguments, **(keywords or {}))
        computed = [each for each in tree_leaves(returned) if isinstance(each, Tensor)]
        # Numbers of numpy's are on the CPU, and these operations compute nothing.
        if any(each.dtype == torch.float64 for each in computed) and "detach" not in str(function):
            raise TypeError(f"{function} makes float64")
        return returned


@pytest.mark.parametrize("keywords", SETTINGS, ids=str)
def test_nothing_is_computed_in_float64_on_the_device(keywords: dict[str, Any]) -> None:
    loss = CLPLoss(**RANDOM, **{name: value for name, value in keywords.items() if name != "negatives"})
    sr, target, lr = (torch.rand(2, 3, side, side) for side in (64, 64, 16))
    with NoDoubles():
        loss(sr.requires_grad_(), target, lr).backward()
        assert loss.diagnostics is not None
        assert loss.diagnostics.read().layers
    with pytest.raises(TypeError, match="makes float64"), NoDoubles():
        sr.detach().double()
