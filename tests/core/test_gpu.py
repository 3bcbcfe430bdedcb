"""On a GPU: ``CLP_TEST_GPU=1 pytest -n 0 tests/core/test_gpu.py``. The CPU in float32 is the oracle."""

import copy
import importlib.util
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clp_basicsr import CLPLoss
from clp_basicsr.bench.contenders import build
from clp_basicsr.bench.measuring import peak_bytes, training_step
from clp_basicsr.distances import DISTANCES
from clp_basicsr.gpu import distances
from clp_basicsr.gpu.convolutions import can_join, convolution_and_relu

from .oracles import Images, loop_distances
from .test_float16_range import cosine
from .test_other_device import RANDOM, SETTINGS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or CLP_TEST_GPU=1 is not set")

GPU = torch.device("cuda", 0)
Photos = tuple[Tensor, Tensor]
Build = Callable[..., CLPLoss]
needs_basicsr = pytest.mark.skipif(importlib.util.find_spec("basicsr") is None, reason="BasicSR is not installed")


@pytest.fixture(autouse=True)
def float32_without_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(params=["vgg", "dinov2_small", "dinov3_small", "lite", "timm"])
def built(request: pytest.FixtureRequest, vgg_weights: Path, package_weights: dict[str, Path]) -> Build:
    models: dict[str, tuple[str, str | Path | None]] = {
        "vgg": ("vgg", vgg_weights),
        "dinov2_small": ("dinov2_small", "random"),
        "dinov3_small": ("dinov3_small", "random"),
        "lite": ("efficientnet_lite0", None),
        "timm": ("timm:test_resnet", package_weights["timm:test_resnet"]),
    }
    model, weights = models[request.param]
    return lambda **keywords: CLPLoss(model, weights=weights, **keywords)


@pytest.fixture
def images(photo_batch: Photos) -> Images:
    gt, lr = photo_batch
    noise = torch.rand(gt.shape, generator=torch.Generator().manual_seed(0))
    return Images((0.9 * gt + 0.1 * noise).requires_grad_(), gt, lr)


def on_gpu(images: Images) -> Images:
    return Images(*(each.detach().to(GPU).requires_grad_(each.requires_grad) for each in images))


def value_and_gradient(loss: nn.Module, images: Images) -> tuple[float, Tensor]:
    value = loss(*images)
    (gradient,) = torch.autograd.grad(value, images.sr)
    return value.item(), gradient.double().cpu().flatten()


def assert_close(seen: tuple[float, Tensor], wanted: tuple[float, Tensor]) -> None:
    assert seen[0] == pytest.approx(wanted[0], rel=1e-3)
    assert cosine(seen[1], wanted[1]) > 0.999
    assert seen[1].norm().item() == pytest.approx(wanted[1].norm().item(), rel=1e-2)


@contextmanager
def nothing_waits() -> Iterator[None]:
    """torch raises where the CPU would wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:weights='random'")
def test_every_network_says_what_it_says_on_the_cpu(built: Build, images: Images) -> None:
    loss = built()
    wanted = value_and_gradient(loss, images)  # and so the weights have the CPU's layout when they move
    assert_close(value_and_gradient(loss.to(GPU), on_gpu(images)), wanted)
    assert_close(value_and_gradient(built().to(GPU), on_gpu(images)), wanted)


@pytest.mark.parametrize("distance", ["l2", "l1", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_distances_and_their_gradient(distance: str, dtype: torch.dtype, layout: torch.memory_format) -> None:
    """Near each other, where what is rounded would show; of half precision maps as of the same maps in float64."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(2, 8, 12, 14, generator=generator).to(dtype)
    second = (first + 0.1 * torch.randn(first.shape, generator=generator)).to(dtype)
    exact = first.double().requires_grad_()
    wanted = torch.tensor(
        [loop_distances(*pair, distance) for pair in zip(exact.detach().numpy(), second.double().numpy())]
    )
    (gradient,) = torch.autograd.grad(DISTANCES[distance].between(exact, second.double()).sum(), exact)
    moved, other = (each.to(GPU, memory_format=layout) for each in (first, second))
    seen = DISTANCES[distance].between(moved.requires_grad_(), other)
    (found,) = torch.autograd.grad(seen.sum(), moved)
    assert seen.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.dtype == dtype
    rounding = max(torch.finfo(dtype).eps, 1e-6)
    torch.testing.assert_close(seen.double().cpu(), wanted.double(), rtol=rounding, atol=1e-4 * float(wanted.max()))
    torch.testing.assert_close(found.double().cpu(), gradient, rtol=4 * rounding, atol=rounding * float(gradient.max()))
    size = DISTANCES[distance].size(moved)
    torch.testing.assert_close(size.cpu(), DISTANCES[distance].size(first), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("keywords", SETTINGS, ids=str)
def test_every_setting_says_what_it_says_on_the_cpu(keywords: dict[str, Any], images: Images) -> None:
    loss = CLPLoss(**{**RANDOM, **keywords})
    wanted = value_and_gradient(copy.deepcopy(loss), images)
    assert_close(value_and_gradient(loss.to(GPU), on_gpu(images)), wanted)


@pytest.mark.parametrize("keywords", SETTINGS, ids=str)
def test_no_setting_waits(keywords: dict[str, Any], images: Images) -> None:
    """Also where every tenth call is measured layer by layer."""
    loss = CLPLoss(**{**RANDOM, **keywords}).to(GPU)
    moved = on_gpu(images)
    loss(*moved).backward()
    with nothing_waits():
        for _ in range(12):
            loss(*moved).backward()


@pytest.mark.filterwarnings("ignore:weights='random'")
def test_no_network_waits(built: Build, images: Images) -> None:
    loss = built().to(GPU)
    moved = on_gpu(images)
    loss(*moved).backward()
    with nothing_waits():
        loss(*moved).backward()


def test_what_would_wait_is_noticed() -> None:
    with nothing_waits(), pytest.raises(RuntimeError, match="synchronizing"):
        torch.ones(1, device=GPU).item()


@pytest.mark.filterwarnings("ignore:weights='random'")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_as_a_cuda_graph(built: Build, images: Images, precision: str) -> None:
    """Captured once and replayed with other images, it gives their gradient."""
    loss = built(diagnostics=False, precision=precision).to(GPU)
    static = on_gpu(images)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.autograd.grad(loss(*static), static.sr)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(*static)
        (gradient,) = torch.autograd.grad(value, static.sr)
    others = on_gpu(Images(*(each.detach().flip(0, -1).requires_grad_(each.requires_grad) for each in images)))
    wanted = value_and_gradient(loss, others)
    with torch.no_grad():
        for place, image in zip(static, others):
            place.copy_(image)
        loss(*(each[..., :64, :64] for each in others[:2]), others.lr[..., :16, :16])  # of another size, in between
    graph.replay()
    assert_close((value.item(), gradient.double().cpu().flatten()), wanted)


@pytest.mark.filterwarnings("ignore:weights='random'")
@pytest.mark.parametrize("precision", ["bfloat16", "float16", "auto"])
def test_half_precision(built: Build, images: Images, precision: str) -> None:
    wanted = value_and_gradient(built(), images)
    value, gradient = value_and_gradient(built(precision=precision).to(GPU), on_gpu(images))
    assert value == pytest.approx(wanted[0], rel=0.02)
    assert gradient.isfinite().all()
    assert cosine(gradient, wanted[1]) > 0.5  # how far ReLUs turn it: docs/performance.md


def test_auto_is_bfloat16_where_the_gpu_has_arithmetic_for_it(images: Images) -> None:
    modern = torch.cuda.get_device_capability(GPU) >= (8, 0)
    same_as = "bfloat16" if modern else "float32"
    seen, wanted = (
        value_and_gradient(CLPLoss(**RANDOM, precision=each).to(GPU), on_gpu(images)) for each in ("auto", same_as)
    )
    assert seen[0] == pytest.approx(wanted[0], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_inside_a_hosts_autocast_with_a_scaler(vgg_weights: Path, images: Images, dtype: torch.dtype) -> None:
    """As in neosr: SR is in half precision, the losses are scaled."""
    loss = CLPLoss("vgg", weights=vgg_weights).to(GPU)
    wanted = value_and_gradient(loss, on_gpu(images))
    network = nn.Conv2d(3, 3, 1).to(GPU)
    with torch.no_grad():
        network.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
        nn.init.zeros_(network.bias)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    # 2^16, where it begins, overflows in the gradient of this layer's bias: it would leave the first steps out.
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**8, enabled=dtype == torch.float16)
    moved = on_gpu(images)
    with torch.autocast("cuda", dtype=dtype):
        value = loss(network(moved.sr), moved.gt, moved.lr)
    scaler.scale(value).backward()
    scaler.unscale_(optimizer)
    assert value.item() == pytest.approx(wanted[0], rel=0.05)
    assert all(each.grad is not None and each.grad.isfinite().all() for each in network.parameters())


@pytest.mark.filterwarnings("ignore:weights='random'")
@pytest.mark.parametrize(
    ("model", "precision", "sizes"),
    [("vgg", "float32", (128, 112, 96)), ("vgg", "auto", (128,)), ("dinov2_small", "float32", (128, 120, 96))],
)
def test_compiled(model: str, precision: str, sizes: tuple[int, ...], images: Images) -> None:
    """Of another size too; a second new size compiles nothing."""
    layers = {"dinov2_small": {"block2": 1.0}, "vgg": {"relu1_2": 1.0, "relu2_2": 0.5}}[model]
    keywords: dict[str, Any] = {"weights": "random", "layer_weights": layers, "precision": precision}
    loss = CLPLoss(model, **keywords).to(GPU)
    compiled = CLPLoss(model, compile=True, **keywords).to(GPU)
    for size in sizes:
        sr, gt, lr = (each[..., : size // scale, : size // scale] for each, scale in zip(images, (1, 1, 4)))
        smaller = on_gpu(Images(sr, gt, lr))
        with torch.compiler.set_stance("fail_on_recompile" if size == 96 else "default"):
            assert_close(value_and_gradient(compiled, smaller), value_and_gradient(loss, smaller))


@pytest.mark.parametrize("model", ["vgg", "dinov2_small"])
@pytest.mark.filterwarnings("ignore:weights='random'")
def test_its_own_kernels_measure(model: str, images: Images) -> None:
    """Of every layer, in the layout that it comes in."""
    loss = CLPLoss(model, weights="random").to(GPU)
    features = loss.features(on_gpu(images).sr.detach())
    assert all(distances.can_measure(each, each, each[None]) for each in features.values())
    layer = next(iter(features.values()))
    assert not distances.can_measure(layer[..., 1:], layer[..., 1:], layer[None, ..., 1:])
    assert not distances.can_measure(layer.double(), layer, layer[None])
    assert not distances.can_measure(layer, layer.requires_grad_(), layer[None])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolution_and_relu_in_one(dtype: torch.dtype, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 16, 3, padding=1).to(GPU, dtype=dtype, memory_format=layout).requires_grad_(False)
    images = torch.randn(2, 3, 20, 24, device=GPU).to(dtype, memory_format=layout).requires_grad_()
    assert can_join(images, 16)
    assert not can_join(images, 2**31)
    assert not can_join(images.half(), 16)
    assert not can_join(images.double(), 16)
    weights = torch.randn(2, 16, 20, 24, device=GPU)
    exact = copy.deepcopy(convolution).double()
    found, wanted = [], []
    for results, maps in (
        (found, convolution_and_relu(images, convolution)),
        (wanted, exact(images.double()).relu()),
    ):
        assert maps.dtype == (dtype if results is found else torch.float64)
        (gradient,) = torch.autograd.grad((maps * weights).sum(), images, create_graph=True)
        (second,) = torch.autograd.grad((gradient.float() * weights[:, :3]).sum(), images, allow_unused=True)
        assert second is None or not second.any()  # it is linear
        results += [maps.double(), gradient.double()]
    rounding = max(4 * torch.finfo(dtype).eps, 1e-5)
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one, other, rtol=rounding, atol=rounding * float(other.abs().max()))
    with torch.no_grad():
        torch.testing.assert_close(convolution_and_relu(images, convolution).double(), found[0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_nan_shows(precision: str, vgg_weights: Path, images: Images) -> None:
    loss = CLPLoss("vgg", weights=vgg_weights, precision=precision).to(GPU)
    for place in range(3):
        moved = [each.detach().clone() for each in on_gpu(images)]
        moved[place][0, 1, 2, 3] = torch.nan
        assert loss(*moved).isnan()


def test_a_layer_before_its_relu_is_left_as_it_is(vgg_weights: Path, images: Images) -> None:
    layers = {"conv1_2": 1.0, "relu1_2": 1.0}
    loss = CLPLoss("vgg", weights=vgg_weights, layer_weights=layers)
    wanted = value_and_gradient(loss, images)
    assert_close(value_and_gradient(loss.to(GPU), on_gpu(images)), wanted)
    assert loss.features(on_gpu(images).sr)["conv1_2"].min() < 0


@pytest.mark.filterwarnings("ignore:weights='random'")
@pytest.mark.parametrize("keywords", [{}, {"precision": "bfloat16"}], ids=str)
def test_second_derivative(vgg_weights: Path, images: Images, keywords: dict[str, Any]) -> None:
    """A gradient penalty's."""

    def penalty(loss: nn.Module, given: Images) -> Tensor:
        (gradient,) = torch.autograd.grad(loss(*given), given.sr, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), given.sr)
        return second.double().cpu().flatten()

    loss = CLPLoss("vgg", weights=vgg_weights, layer_weights={"relu1_2": 1.0, "relu2_2": 1.0}, **keywords)
    wanted = penalty(CLPLoss("vgg", weights=vgg_weights, layer_weights={"relu1_2": 1.0, "relu2_2": 1.0}), images)
    assert cosine(penalty(loss.to(GPU), on_gpu(images)), wanted) > (0.5 if keywords else 0.99)


def test_copies_and_pickles(images: Images) -> None:
    loss = CLPLoss(**RANDOM).to(GPU)
    wanted = value_and_gradient(loss, on_gpu(images))
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), nn.DataParallel(loss)):
        assert_close(value_and_gradient(other, on_gpu(images)), wanted)
    assert_close(value_and_gradient(loss.cpu(), images), wanted)


def test_says_where_the_images_are_and_where_the_loss_is(images: Images) -> None:
    with pytest.raises(ValueError, match=r"images on cpu and the loss on cuda:0.*loss\.to\('cpu'\)"):
        CLPLoss(**RANDOM).to(GPU)(*images)
    with pytest.raises(ValueError, match=r"images on cuda:0 and the loss on cpu.*loss\.to\('cuda:0'\)"):
        CLPLoss(**RANDOM)(*on_gpu(images))


@needs_basicsr
@pytest.mark.parametrize(("name", "most"), [("vgg", 1.15), ("vgg:bfloat16", 0.7)])
def test_peak_memory_beside_perceptual_loss(name: str, most: float) -> None:
    torch.backends.cudnn.allow_tf32 = True  # without it cuDNN takes gigabytes for itself
    own, rival = (peak_bytes(training_step(build(each, GPU), 8, 256, GPU), GPU) for each in (name, "perceptual"))
    assert own <= most * rival
