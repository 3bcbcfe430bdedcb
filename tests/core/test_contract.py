"""What a training loop does to a loss: save, copy, wrap, compile, autocast."""

import copy
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from clp_basicsr import CLPLoss

from .oracles import Images, crop

aten = torch.ops.aten
Photos = tuple[Tensor, Tensor]
Weights = dict[str, Path]
REDUCED = [("bfloat16", torch.bfloat16, 0.05), ("float16", torch.float16, 0.01)]


@pytest.fixture(params=["vgg", "dino", "lite", "torchvision", "timm"])
def loss(request: pytest.FixtureRequest, vgg_weights: Path, dino_folder: Path, package_weights: Weights) -> CLPLoss:
    return {
        "vgg": lambda: CLPLoss("vgg", weights=vgg_weights, layer_weights={"conv1_2": 1, "relu2_2": 0.5}),
        "dino": lambda: CLPLoss(str(dino_folder), layer_weights={"block1": 1, "block3": 0.5}),
        "lite": lambda: CLPLoss("efficientnet_lite0", layer_weights={"block1": 1, "block3": 0.5}),
        "torchvision": lambda: CLPLoss(
            "torchvision:squeezenet1_1",
            weights=package_weights["torchvision:squeezenet1_1"],
            layer_weights={"features.0": 1, "features.3": 0.5},
        ),
        "timm": lambda: CLPLoss(
            "timm:test_resnet",
            weights=package_weights["timm:test_resnet"],
            layer_weights={"act1": 1, "layer2": 0.5},
        ),
    }[request.param]()


@pytest.fixture
def images(photo_batch: Photos) -> Images:
    return crop(photo_batch, 2, 32)


def value_and_gradient(loss: nn.Module, images: Images) -> tuple[Tensor, Tensor]:
    value = loss(*images)
    return value.detach(), torch.autograd.grad(value, images.sr)[0]


def test_trains_after_a_first_call_in_inference_mode(loss: CLPLoss, images: Images) -> None:
    """As in a host that validates before it trains."""
    expected = value_and_gradient(copy.deepcopy(loss), images)
    with torch.inference_mode():
        loss(*(each.detach() for each in images))
    for seen, wanted in zip(value_and_gradient(loss, images), expected):
        assert torch.equal(seen, wanted)


def test_returns_a_0_dim_tensor(loss: CLPLoss, images: Images) -> None:
    value = loss(*images)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value.requires_grad


def test_loss_weight_multiplies(vgg_weights: Path, images: Images) -> None:
    layers = {"relu1_1": 1.0}
    values = [
        CLPLoss("vgg", weights=vgg_weights, layer_weights=layers, loss_weight=weight)(*images).item()
        for weight in (1, 0.25)
    ]
    assert values[1] == pytest.approx(values[0] / 4, rel=1e-6)


def test_nothing_is_saved_and_nothing_is_trained(loss: CLPLoss) -> None:
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []
    assert sum(buffer.numel() for buffer in loss.buffers()) > 1000


def test_an_empty_state_dict_loads_strictly(loss: CLPLoss, images: Images) -> None:
    before = loss(*images)
    loss.load_state_dict(loss.state_dict(), strict=True)
    loss.load_state_dict({}, strict=True)
    assert torch.equal(loss(*images), before)


def test_requires_grad_changes_nothing(loss: CLPLoss, images: Images) -> None:
    before = loss(*images)
    loss.requires_grad_(True)
    assert not any(buffer.requires_grad for buffer in loss.buffers())
    assert list(loss.parameters()) == []
    assert torch.equal(loss(*images), before)


def test_train_leaves_the_network_in_eval(loss: CLPLoss, images: Images) -> None:
    before = loss.eval()(*images)
    nn.ModuleList([loss]).train()
    assert loss.training
    assert not any(module.training for module in loss.extractor.modules())
    assert torch.equal(loss(*images), before)


def test_network_is_in_eval_from_the_start(loss: CLPLoss) -> None:
    layers = [module for module in loss.extractor.modules() if not list(module.children())]
    assert len(layers) > 2
    assert not any(layer.training for layer in layers)


def test_one_pass_with_gradient_and_one_without(loss: CLPLoss, images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, bool]] = []
    extract = loss.extractor.extract

    def counted(batch: Tensor) -> dict[str, Tensor]:
        calls.append((batch.shape[0], torch.is_grad_enabled()))
        return extract(batch)

    monkeypatch.setattr(loss.extractor, "extract", counted)
    loss(*images)
    assert sorted(calls) == [(2, True), (4, False)]


def check_copy(copied: CLPLoss, original: CLPLoss, images: Images) -> None:
    for pair in zip(value_and_gradient(copied, images), value_and_gradient(original, images)):
        assert torch.equal(*pair)
    assert copied.state_dict() == {}
    assert list(copied.parameters()) == []


def test_deepcopy_gives_the_same_loss(loss: CLPLoss, images: Images) -> None:
    check_copy(copy.deepcopy(loss), loss, images)
    loss(*images)
    check_copy(copy.deepcopy(loss), loss, images)


@pytest.mark.parametrize("used_before", [False, True])
def test_pickle_gives_the_same_loss(loss: CLPLoss, images: Images, used_before: bool) -> None:
    if used_before:
        loss(*images)
    check_copy(pickle.loads(pickle.dumps(loss)), loss, images)


def test_torch_save_gives_the_same_loss(loss: CLPLoss, images: Images) -> None:
    buffer = io.BytesIO()
    torch.save(loss, buffer)
    buffer.seek(0)
    check_copy(torch.load(buffer, weights_only=False), loss, images)


def test_copies_share_no_memory(loss: CLPLoss) -> None:
    addresses = {buffer.data_ptr() for buffer in loss.buffers()}
    assert not addresses & {buffer.data_ptr() for buffer in copy.deepcopy(loss).buffers()}


def test_float64(loss: CLPLoss, images: Images) -> None:
    value, gradient = value_and_gradient(loss, images)
    double = Images(images.sr.detach().double().requires_grad_(), images.gt.double(), images.lr.double())
    exact, exact_gradient = value_and_gradient(loss.to(torch.float64), double)
    assert exact.dtype == torch.float64
    assert exact_gradient.dtype == torch.float64
    assert value.item() == pytest.approx(exact.item(), rel=1e-4)
    assert float((gradient - exact_gradient).norm() / exact_gradient.norm()) < 1e-3


def test_data_parallel(loss: CLPLoss, images: Images) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    moved = Images(*(each.detach().to(device) for each in images))
    wrapped = nn.DataParallel(loss.to(device), device_ids=[0] if device == "cuda" else None)
    assert torch.equal(wrapped(*moved), loss(*moved))


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_behind_a_network_in_ddp(loss: CLPLoss, images: Images) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 3, 3, padding=1)
    wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(plain))
    for network in (plain, wrapped):
        loss(network(images.sr.detach()), images.gt, images.lr).backward()
    assert plain.weight.grad is not None
    assert plain.weight.grad.abs().max() > 0
    torch.testing.assert_close(wrapped.module.weight.grad, plain.weight.grad)


def test_outer_autocast_leaves_float32_alone(loss: CLPLoss, images: Images) -> None:
    value, gradient = value_and_gradient(loss, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(*images)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, value)
    assert torch.equal(torch.autograd.grad(inside, images.sr)[0], gradient)


def test_outer_autocast_leaves_the_negatives_alone(images: Images) -> None:
    """All but `lagged`, which is the network in training and runs as that does."""
    values = []
    for enabled in (False, True):
        loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1}, negatives=["lr", "blur", "degraded"])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            values.append(loss(*images))
    assert torch.equal(*values)


def test_channels_last_changes_nothing(loss: CLPLoss, images: Images) -> None:
    expected, gradient = value_and_gradient(loss, images)
    sr = images.sr.detach().to(memory_format=torch.channels_last).requires_grad_()
    loss.to(memory_format=torch.channels_last)
    value = loss(sr, images.gt, images.lr)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, sr)[0], gradient, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("model", ["vgg", "dinov2_small", "efficientnet_lite0", "random_convs"])
def test_built_under_a_default_device(model: str) -> None:
    """Hosts set it to the GPU; "meta" stands for any that is not the CPU."""
    expected = CLPLoss(model, weights="random")
    with torch.device("meta"):
        loss = CLPLoss(model, weights="random")
    assert {buffer.device.type for buffer in loss.buffers()} == {"meta"}
    assert [buffer.shape for buffer in loss.buffers()] == [buffer.shape for buffer in expected.buffers()]


def test_a_checkpoint_is_read_under_a_default_device(dino_folder: Path) -> None:
    with torch.device("meta"):
        loss = CLPLoss(str(dino_folder))
    assert loss.extractor.mean.device.type == "meta"


def test_a_default_device_does_not_meddle_with_a_call(loss: CLPLoss, images: Images) -> None:
    expected, gradient = value_and_gradient(loss, images)
    with torch.device("meta"):
        value = loss(*images)
        seen = torch.autograd.grad(value, images.sr)[0]
    assert torch.equal(value, expected)
    assert torch.equal(seen, gradient)


@pytest.mark.parametrize(("precision", "dtype", "tolerance"), REDUCED)
@pytest.mark.parametrize("network", ["vgg", "dino"])
def test_reduced_precision(
    vgg_weights: Path,
    dino_folder: Path,
    images: Images,
    network: str,
    precision: str,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    model, weights = ("vgg", vgg_weights) if network == "vgg" else (str(dino_folder), None)
    layers = {"relu1_2": 1, "relu2_1": 1} if network == "vgg" else None
    exact = CLPLoss(model, weights=weights, layer_weights=layers)
    reduced = CLPLoss(model, weights=weights, layer_weights=layers, precision=precision)
    seen: set[torch.dtype] = set()
    for module in reduced.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda *hooked: seen.add(hooked[2].dtype))
    value, gradient = value_and_gradient(reduced, images)
    assert seen == {dtype}
    assert value.dtype == gradient.dtype == torch.float32
    assert value.item() == pytest.approx(exact(*images).item(), rel=tolerance)
    assert value.item() != exact(*images).item()
    assert all(feature.dtype == torch.float32 for feature in reduced.extractor(images.gt).values())


def test_compiled_step_equals_the_eager_one(loss: CLPLoss, images: Images) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1)

    def step(batch: Tensor, gt: Tensor, lr: Tensor) -> Tensor:
        value: Tensor = loss(network(batch), gt, lr)
        return value

    outcomes = []
    for each in (step, torch.compile(step, backend="aot_eager")):
        value = each(images.sr.detach(), images.gt, images.lr)
        outcomes.append((value.detach(), *torch.autograd.grad(value, list(network.parameters()))))
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=1e-4, atol=1e-6)


def test_summary_can_be_taken_once(loss: CLPLoss, images: Images) -> None:
    assert loss.summary is None
    value = loss(*images)
    summary = loss.take_summary()
    assert summary is not None
    assert not any(each.requires_grad or each.dim() for each in summary)
    assert (summary.pull + summary.push).item() == pytest.approx(value.item(), rel=1e-5)
    assert loss.take_summary() is None


def test_print_shows_the_settings(loss: CLPLoss) -> None:
    assert "loss_weight=1.0" in repr(loss)
    assert "RelativeTriplet(distance=l2, push_weight=1.0)" in repr(loss)
    assert "negatives=[lr]" in repr(loss)
    told = CLPLoss("random_convs", auto_weight=0.1, start_iter=9, precision="bfloat16", chunk=1).extra_repr()
    for setting in ("auto_weight=0.1", "start_iter=9", "precision=bfloat16", "chunk=1"):
        assert setting in told
        assert setting.partition("=")[0] not in loss.extra_repr()


class Looks(TorchDispatchMode):
    """Notes every operation that has to wait for a GPU's result."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        if function.overloadpacket in (aten._local_scalar_dense, aten.nonzero, aten.equal, aten.masked_select):
            self.noted.append(str(function))
        return function(*arguments, **(keywords or {}))


def test_forward_never_looks_at_values(loss: CLPLoss, images: Images) -> None:
    """No `.item()`, no branch on a value, so no wait for the GPU."""
    with Looks() as looks:
        loss(*images).backward()
    assert not looks.noted
    with Looks() as looks:
        loss(*images).item()
    assert looks.noted


def test_traces_without_a_break(loss: CLPLoss, images: Images, request: pytest.FixtureRequest) -> None:
    if "dino" in request.node.name and torch.__version__ < (2, 8):
        pytest.skip("transformers' decorators break the graph with this torch")
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert compiled(*images).item() == pytest.approx(loss(*images).item(), rel=1e-6)
