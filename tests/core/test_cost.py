"""`checkpoint`, `chunk`, `compile` and `precision: auto` change the cost of the loss and nothing else."""

import copy
import itertools
import pickle
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clp_basicsr import CLPLoss, build_extractor, compiling
from clp_basicsr.extractors import precision
from clp_basicsr.extractors.efficientnet_lite import EfficientNetLite
from clp_basicsr.extractors.vgg import VGG19
from clp_basicsr.images import reflect_pad_to_multiple
from clp_basicsr.inspection import inspect

from .oracles import Images, crop

Photos = tuple[Tensor, Tensor]
VGG_LAYERS = {"relu1_2": 0.5, "conv2_1": 1.0, "relu3_1": 1.0}
MEANS: list[dict[str, Any]] = [
    {},
    {"distance": "l1", "push_weight": 0.5},
    {"distance": "cosine"},
    {"margin": 0.5, "swap": True},
    {"criterion": "ratio"},
    {"criterion": "infonce"},
    {"criterion": "directional"},
    {"negatives": ["lr", {"type": "blur", "count": 2, "seed": 3}], "range_norm": True},
]


@pytest.fixture
def images(photo_batch: Photos) -> Images:
    return crop(photo_batch, 3, 32)


@pytest.fixture(params=["vgg", "dino", "lite", "random_convs"])
def network(request: pytest.FixtureRequest, vgg_weights: Path, dino_folder: Path) -> dict[str, Any]:
    return {
        "vgg": {"model": "vgg", "weights": vgg_weights, "layer_weights": VGG_LAYERS},
        "dino": {"model": str(dino_folder), "layer_weights": {"block1": 1, "block3": 0.5}},
        "lite": {"model": "efficientnet_lite0", "layer_weights": {"block1": 1, "block3": 0.5}},
        "random_convs": {"model": "random_convs"},
    }[request.param]


@pytest.fixture
def quick_compilation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    for kind in (VGG19, EfficientNetLite):  # as on a GPU
        monkeypatch.setattr(kind, "gains_from_compilation", lambda *_: True)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def outcome(loss: CLPLoss, images: Images) -> dict[str, Tensor]:
    """Everything that a call leaves behind."""
    value = loss(*images)
    (gradient,) = torch.autograd.grad(value, images.sr)
    summary = loss.take_summary()
    assert summary is not None
    return {"value": value.detach(), "gradient": gradient, **summary._asdict()}


def check_equal(seen: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-4) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(seen[name], tensor, rtol=rtol, atol=1e-5 * float(tensor.abs().max()), msg=name)


def test_checkpoint_is_exact_and_runs_blocks_twice(network: dict[str, Any], images: Images) -> None:
    runs = []
    for keywords in ({}, {"checkpoint": True}):
        loss = CLPLoss(**network, **keywords, diagnostics=False)
        calls: list[bool] = []
        for module in loss.extractor.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(lambda *_, calls=calls: calls.append(torch.is_grad_enabled()))
        runs.append((outcome(loss, images), sum(calls), len(calls)))
    (expected, once, _), (seen, twice, _) = runs
    for name, tensor in expected.items():
        assert torch.equal(seen[name], tensor), name
    assert once < twice <= 2 * once


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_checkpoint_is_copied(network: dict[str, Any], images: Images, copied: Any) -> None:
    loss = CLPLoss(**network, checkpoint=True)
    other = copied(loss)
    calls: list[None] = []
    for module in other.extractor.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda *_: calls.append(None))
    check_equal(outcome(other, images), outcome(loss, images))
    plain: list[None] = []
    reference = CLPLoss(**network)
    for module in reference.extractor.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda *_: plain.append(None))
    outcome(reference, images)
    assert len(calls) > len(plain)


def test_checkpoint_in_a_replica_of_data_parallel(network: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.nn.parallel.replicate asks each module for its replica and then gives it the other device's tensors."""
    extractor = CLPLoss(**network, checkpoint=True).extractor
    found = [block for block in extractor.modules() if "_replicate_for_data_parallel" in vars(block)]
    for block in found:
        replica = block._replicate_for_data_parallel()
        seen: list[nn.Module] = []
        monkeypatch.setattr(type(block), "forward", lambda module, seen=seen: seen.append(module))
        for module in (replica, block):
            module.forward()
        assert seen[0] is replica
        assert seen[1] is block
        seen.clear()
        alive = weakref.ref(replica)
        del replica, module
        assert alive() is None
    assert bool(found) == any(isinstance(module, nn.ModuleList) for module in extractor.modules())


class Kept:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved_bytes(loss: CLPLoss, images: Images) -> int:
    """What autograd holds between the two passes, each storage once."""
    kept: weakref.WeakSet[Kept] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Kept:
        holder = Kept(tensor)
        kept.add(holder)
        return holder

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor):
        value = loss(*images)
    storages = [holder.tensor.untyped_storage() for holder in kept]
    assert value.requires_grad
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("reentrant", [False, True], ids=str)
def test_somebody_elses_checkpoint_around_it(reentrant: bool, images: Images) -> None:
    results = []
    for wrapped in (False, True):
        loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_1": 1.0})
        sr = images.sr.detach().requires_grad_()
        inputs = sr, images.gt, images.lr
        value = checkpoint(loss, *inputs, use_reentrant=reentrant) if wrapped else loss(*inputs)
        value.backward()
        results.append((value.detach(), sr.grad))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("reentrant", [False, True], ids=str)
@pytest.mark.parametrize("keywords", [{"negatives": "degraded"}, {"warmup_iter": 10}, {"auto_weight": 0.1}], ids=str)
def test_what_would_be_another_loss_is_not_computed_again(
    keywords: dict[str, Any], reentrant: bool, images: Images
) -> None:
    loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_1": 1.0}, **keywords)
    inputs = images.sr.detach().requires_grad_(), images.gt, images.lr
    with pytest.raises(ValueError, match=r"must not be computed again .* `checkpoint: true`"):
        checkpoint(loss, *inputs, use_reentrant=reentrant).backward()


@pytest.mark.parametrize("network", ["dino"], indirect=True)
@pytest.mark.parametrize("keywords", [{"checkpoint": True}, {"chunk": 1}])
def test_less_is_kept_for_the_backward_pass(network: dict[str, Any], images: Images, keywords: dict[str, Any]) -> None:
    kept = [saved_bytes(CLPLoss(**network, diagnostics=False, **each), images) for each in ({}, keywords)]
    assert kept[1] < kept[0] / 2


def test_a_negative_more_keeps_its_maps_once(images: Images) -> None:
    layers = {"relu1_1": 1.0, "relu2_1": 1.0}
    kept = {
        count: saved_bytes(
            CLPLoss(
                "vgg",
                weights="random",
                layer_weights=layers,
                diagnostics=False,
                negatives=["lr", {"type": "blur", "count": count}],
            ),
            images,
        )
        for count in (1, 4)
    }
    own_maps = 4 * images.gt.shape[0] * (64 * 32 * 32 + 128 * 16 * 16)
    assert kept[4] - kept[1] == pytest.approx(3 * own_maps, rel=0.01)


@pytest.mark.parametrize("size", [1, 2, 3, 10])
@pytest.mark.parametrize("keywords", MEANS, ids=str)
def test_chunk_is_exact(images: Images, keywords: dict[str, Any], size: int, photo_batch: Photos) -> None:
    network = {"model": "random_convs", "layer_weights": {"conv1": 1.0, "conv2": 0.5}}
    expected = outcome(CLPLoss(**network, **keywords), images)
    check_equal(outcome(CLPLoss(**network, **keywords, chunk=size), images), expected)


def test_chunk_is_exact_on_every_network(network: dict[str, Any], images: Images) -> None:
    check_equal(outcome(CLPLoss(**network, chunk=2), images), outcome(CLPLoss(**network), images), rtol=1e-3)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("network", ["dino"], indirect=True)
@pytest.mark.parametrize("keywords", [{}, {"checkpoint": True}, {"chunk": 1}, {"compile": True}], ids=str)
def test_a_hosts_autocast_does_not_reach_the_gradient(
    network: dict[str, Any], images: Images, keywords: dict[str, Any]
) -> None:
    """Nor does the weight that follows from it: the loss runs in a precision of its own."""
    if "compile" in keywords and torch.__version__ < (2, 8):
        pytest.skip("transformers' decorators break the graph with this torch")
    expected = outcome(CLPLoss(**network, auto_weight=0.1, **keywords), images)
    loss = CLPLoss(**network, auto_weight=0.1, **keywords)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(*images)
    (gradient,) = torch.autograd.grad(value, images.sr)
    torch.testing.assert_close(value.detach(), expected["value"], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected["gradient"], rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))


def test_chunk_runs_so_many_images_at_a_time(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = CLPLoss("random_convs", chunk=2)
    sizes: list[tuple[int, bool]] = []
    extract = loss.extractor.extract

    def counted(batch: Tensor) -> dict[str, Tensor]:
        sizes.append((len(batch), torch.is_grad_enabled()))
        return extract(batch)

    monkeypatch.setattr(loss.extractor, "extract", counted)
    loss(*images).backward()
    assert sizes == [(4, False), (2, True), (2, False), (1, True)]
    sizes.clear()
    with torch.no_grad():
        loss(*images)
    assert [size for size, _ in sizes] == [4, 2, 2, 1]
    assert not any(with_gradient for _, with_gradient in sizes)


def test_chunk_under_a_loop_of_a_training(images: Images) -> None:
    """The gradient comes through a network before the loss, twice the loss is twice the gradient."""
    torch.manual_seed(0)
    before = nn.Conv2d(3, 3, 3, padding=1)
    gradients = []
    for loss in (CLPLoss("random_convs", auto_weight=0.1), CLPLoss("random_convs", auto_weight=0.1, chunk=2)):
        sr = before(images.sr.detach())
        (gradient,) = torch.autograd.grad(3 * loss(sr, images.gt, images.lr), before.weight)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("keywords", [{}, {"criterion": "infonce"}])
def test_chunk_is_measured_whole(images: Images, keywords: dict[str, Any]) -> None:
    reports = []
    for chunk in (None, 1):
        loss = CLPLoss("random_convs", chunk=chunk, **keywords)
        loss(*images).backward()
        assert loss.diagnostics is not None
        reports.append(loss.diagnostics.read())
    for name in ("pull", "push", "active", "flat"):
        assert reports[1].mean(name) == pytest.approx(reports[0].mean(name), rel=1e-4, abs=1e-6)
    assert reports[1].whole == pytest.approx(reports[0].whole, rel=1e-4)


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"criterion": "batch_ratio"}, "BatchRatio"),
        ({"margin": 1.0, "reduction": "nonzero"}, "nonzero"),
        ({"negatives": ["lr", "batch"]}, "'batch'"),
        ({"preset": "rlfn"}, "BatchRatio"),
    ],
)
def test_chunk_is_refused_where_images_do_not_stand_alone(keywords: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"`chunk` must be left out .*{reason}"):
        CLPLoss(**{"model": "random_convs", **keywords}, chunk=1)


def check_compiled(images: Images, network: dict[str, Any], keywords: dict[str, Any]) -> None:
    expected = outcome(CLPLoss(**network), images)
    loss = CLPLoss(**network, **keywords, compile=True)
    check_equal(outcome(loss, images), expected, rtol=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 3
    assert loss.diagnostics is not None
    assert loss.diagnostics.read().whole["gradient_ratio"] > 0


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("keywords", [{}, {"checkpoint": True}], ids=str)
def test_compiled_is_the_eager_one(
    network: dict[str, Any], images: Images, keywords: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if "dino" in request.node.name and torch.__version__ < (2, 8):
        pytest.skip("transformers' decorators break the graph with this torch")
    check_compiled(images, network, keywords)


@pytest.mark.usefixtures("quick_compilation")
def test_compiled_in_chunks_is_the_eager_one(images: Images) -> None:
    check_compiled(images, {"model": "random_convs"}, {"chunk": 2})


@pytest.mark.filterwarnings("ignore:weights=.random.")
@pytest.mark.parametrize("model", ["vgg", "efficientnet_lite0"])
def test_on_the_cpu_convolutions_gain_nothing_from_compilation(model: str, images: Images) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    outcome(CLPLoss(model, weights="random", compile=True), images)
    assert not torch._dynamo.utils.counters["stats"]


@pytest.mark.slow
def test_compiled_by_inductor(images: Images) -> None:
    torch._dynamo.reset()
    expected, seen = (
        outcome(CLPLoss("random_convs", layer_weights={"conv1": 1.0}, compile=each), images) for each in (False, True)
    )
    check_equal(seen, expected, rtol=1e-3)


@pytest.mark.usefixtures("quick_compilation")
def test_no_compilation_after_the_second_size(photo_batch: Photos) -> None:
    loss = CLPLoss("random_convs", compile=True)
    graphs = []
    for size in (32, 36, 40, 48, 52, 64, 80):
        outcome(loss, crop(photo_batch, 2, size))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs == [3, *[6] * 6]


@pytest.mark.usefixtures("quick_compilation")
def test_compiled_may_be_walked_back_twice_at_every_size_and_in_any_thread(photo_batch: Photos) -> None:
    """As by `auto_weight`, or by what weights GAN losses; on a GPU it is autograd's own threads that walk."""
    loss = CLPLoss("random_convs", layer_weights={"conv1": 1.0}, compile=True)
    for size in (32, 48, 64):
        images = crop(photo_batch, 2, size)
        value, seen = loss(*images), list[Tensor]()

        def walk() -> None:
            for keep in (True, False):
                seen.extend(torch.autograd.grad(value, images.sr, retain_graph=keep))  # noqa: B023

        walk()
        value = loss(*images)
        thread = threading.Thread(target=walk)
        thread.start()
        thread.join()
        assert len(seen) == 4
        assert all(torch.equal(each, seen[0]) for each in seen)


def test_nothing_is_made_general_before_a_size_changes(photo_batch: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for the other pass, whose batch is another, and not for another loss: general code is slower."""
    given: list[Any] = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        given.extend(inputs)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(compiling, "BACKEND", backend)
    for batch, size in ((2, 32), (3, 48)):
        loss = CLPLoss("random_convs", compile=True)
        outcome(loss, crop(photo_batch, batch, size))
    sizes = [each for tensor in given for each in (tensor.shape if isinstance(tensor, Tensor) else [tensor])]
    assert sizes
    assert not any(isinstance(each, torch.SymInt) for each in sizes)
    given.clear()
    outcome(loss, crop(photo_batch, 3, 64))
    assert any(isinstance(each, torch.SymInt) for each in given)


@pytest.mark.filterwarnings("ignore:weights=.random.")
@pytest.mark.parametrize(("network", "kept"), [("vgg", True), ("random_convs", False)])
def test_inductor_is_told_to_keep_channels_last(
    network: str, kept: bool, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where maps lie so, and nowhere else."""
    told: list[Any] = []

    def compile_fx(graph: Any, _: Any, **settings: Any) -> Any:
        told.append(settings.get("config_patches"))
        return graph.forward

    monkeypatch.setattr(VGG19, "gains_from_compilation", lambda *_: True)
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compile_fx)
    torch._dynamo.reset()
    outcome(CLPLoss(network, weights="random", compile=True), images)
    assert [bool(each and each.get("force_layout_optimization")) for each in told] == [kept, kept, False]


def test_padding_compiles_for_sizes_that_change() -> None:
    """As transformers use it, whose position embeddings are resized by a factor that depends on it."""
    torch._dynamo.reset()

    def padded(images: Tensor) -> Tensor:
        patches = reflect_pad_to_multiple(images, 14)
        return patches * (patches.shape[-1] / 14)

    compiled = torch.compile(padded, fullgraph=True, backend="aot_eager")
    for size in (112, 96, 64):
        images = torch.rand(1, 3, size, size)
        assert torch.equal(compiled(images), padded(images))


@pytest.mark.usefixtures("quick_compilation")
def test_compiled_losses_do_not_share_a_limit(photo_batch: Photos) -> None:
    with torch._dynamo.config.patch(cache_size_limit=2):  # torch 2.6's name for `recompile_limit`, still an alias
        for count in range(1, 4):
            outcome(CLPLoss("random_convs", compile=True), crop(photo_batch, 2, 32))
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3 * count


@pytest.mark.usefixtures("quick_compilation")
def test_compiled_is_copied_pickled_and_inspected(images: Images) -> None:
    loss = CLPLoss("random_convs", compile=True)
    expected = outcome(loss, images)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        check_equal(outcome(other, images), expected)
    assert inspect(loss, *images).loss > 0


@pytest.mark.usefixtures("quick_compilation")
def test_compiled_says_what_is_wrong_as_before(vgg_weights: Path) -> None:
    loss = CLPLoss("vgg", weights=vgg_weights, layer_weights={"relu5_1": 1.0}, compile=True)
    tiny = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="must be at least 16x16 pixels"):
        loss(tiny, tiny, tiny)


def gpus_have(monkeypatch: pytest.MonkeyPatch, major: int, minor: int) -> None:
    """Let GPUs that are asked for their compute capability have this one."""
    properties = SimpleNamespace(major=major, minor=minor)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


@pytest.mark.parametrize(
    ("kind", "capability", "dtype", "channels_last"),
    [
        ("cuda", (9, 0), torch.bfloat16, True),
        ("cuda", (8, 0), torch.bfloat16, True),
        ("cuda", (7, 5), torch.float32, False),
        ("cpu", (9, 0), torch.float32, True),
        ("mps", (9, 0), torch.float32, False),
    ],
)
def test_auto_precision_and_layout_by_the_device(
    monkeypatch: pytest.MonkeyPatch, kind: str, capability: tuple[int, int], dtype: torch.dtype, channels_last: bool
) -> None:
    gpus_have(monkeypatch, *capability)
    assert precision.automatic_precision(torch.device(kind)) == dtype
    vgg = build_extractor("vgg", ["relu1_1"], weights="random")
    assert vgg.prefers_channels_last(torch.device(kind)) == channels_last


def test_bfloat16_on_a_gpu_that_is_slow_at_it_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus_have(monkeypatch, 7, 5)
    with pytest.warns(UserWarning, match="8.0 or later to be fast, but this one has 7.5. Use `precision: float16`"):
        precision.warn_if_emulated("bfloat16", torch.device("cuda:0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("float16", "auto", "float32"):
            precision.warn_if_emulated(name, torch.device("cuda"))
        gpus_have(monkeypatch, 8, 9)
        precision.warn_if_emulated("bfloat16", torch.device("cuda"))


@pytest.mark.parametrize(("name", "asked"), [("bfloat16", "bf16"), ("float16", "fp16")])
def test_half_precision_on_a_cpu_without_arithmetic_for_it_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, images: Images, name: str, asked: str
) -> None:
    question = f"_is_mkldnn_{asked}_supported"
    assert getattr(torch.ops.mkldnn, question)() in (True, False)  # torch has it on the machines of the tests
    loss = CLPLoss("random_convs", precision=name)
    monkeypatch.setattr(torch.ops.mkldnn, question, lambda: False)
    with pytest.warns(UserWarning, match=f"`precision: {name}` needs a CPU .* Use `precision: auto`"):
        loss(*images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CLPLoss("random_convs", precision="auto")(*images)
        monkeypatch.setattr(torch.ops.mkldnn, question, lambda: True)
        loss(*images)


def test_where_torch_cannot_say_what_the_cpu_computes_in_nothing_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_SHORT", {"bfloat16": "no_such"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        precision.warn_if_emulated("bfloat16", torch.device("cpu"))


def test_each_call_asks_whether_its_precision_is_slow(monkeypatch: pytest.MonkeyPatch, images: Images) -> None:
    seen: set[tuple[str, str]] = set()
    monkeypatch.setattr(
        "clp_basicsr.extractors.base.warn_if_emulated", lambda precision, device: seen.add((precision, device.type))
    )
    CLPLoss("random_convs", precision="bfloat16")(*images)
    assert seen == {("bfloat16", "cpu")}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_auto_precision_is_used(monkeypatch: pytest.MonkeyPatch, images: Images, dtype: torch.dtype) -> None:
    monkeypatch.setattr("clp_basicsr.extractors.base.automatic_precision", lambda device: dtype)
    loss = CLPLoss("random_convs", precision="auto")
    seen: set[torch.dtype] = set()
    for module in loss.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *hooked: seen.add(hooked[2].dtype))
    assert torch.equal(loss(*images), CLPLoss("random_convs", precision=str(dtype).removeprefix("torch."))(*images))
    assert seen == {dtype}


@pytest.mark.parametrize("model", ["vgg", "dino", "lite"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_held_in_half_precision_change_nothing(
    model: str, dtype: torch.dtype, vgg_weights: Path, dino_folder: Path, photo_batch: Photos
) -> None:
    """Autocast on the network in float32 is the oracle, to the last bit; so are copies and pickles."""
    images = photo_batch[0][:1, :, :32, :32].clone().requires_grad_()
    name, layers, weights = {
        "vgg": ("vgg", ["relu1_2", "relu2_1"], vgg_weights),
        "dino": (str(dino_folder), ["block2"], None),
        "lite": ("efficientnet_lite0", ["block2"], None),
    }[model]
    full = build_extractor(name, layers, weights)
    half = build_extractor(name, layers, weights, precision=str(dtype).removeprefix("torch."))
    normalised = (images - full.mean) / full.std
    if full.prefers_channels_last(images.device):
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        full.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=dtype):
        expected = full.extract(normalised)
    wanted = torch.autograd.grad(sum(each.float().square().sum() for each in expected.values()), images)
    assert {each.dtype for each in half.buffers() if each.dim() in (2, 4) and each.shape[:1] != (1,)} == {dtype}
    for extractor in (half, copy.deepcopy(half), pickle.loads(pickle.dumps(half))):
        maps = extractor.as_computed(images)
        assert maps.keys() == expected.keys()
        assert all(torch.equal(maps[layer], expected[layer]) for layer in maps)
        found = torch.autograd.grad(sum(each.float().square().sum() for each in maps.values()), images)
        assert torch.equal(*found, *wanted)


@pytest.mark.parametrize("name", ["float32", "auto"])
def test_weights_stay_as_they_are_where_it_is_not_known_that_they_will_be_rounded(vgg_weights: Path, name: str) -> None:
    extractor = build_extractor("vgg", ["relu2_1"], vgg_weights, precision=name)
    assert {each.dtype for each in extractor.buffers()} == {torch.float32}
    state = torch.load(vgg_weights)
    assert torch.equal(extractor.get_buffer("network.conv1_1.weight"), state["features.0.weight"])


def test_vgg_holds_no_layer_that_is_not_used(vgg_weights: Path) -> None:
    network = build_extractor("vgg", ["relu2_1"], vgg_weights)
    widths = [3, 64, 64, 128]
    weights = sum(9 * before * after + after for before, after in itertools.pairwise(widths))
    assert sum(buffer.untyped_storage().nbytes() for buffer in network.buffers()) == 4 * (weights + 2 * 3)


@pytest.mark.usefixtures("quick_compilation")
def test_chunk_inside_a_compiled_training_step(images: Images) -> None:
    torch.manual_seed(0)
    network, loss = nn.Conv2d(3, 3, 3, padding=1), CLPLoss("random_convs", chunk=2)

    def step(batch: Tensor) -> Tensor:
        value: Tensor = loss(network(batch), images.gt, images.lr)
        return value

    gradients = [
        torch.autograd.grad(each(images.sr.detach()), network.weight)[0]
        for each in (step, torch.compile(step, backend="aot_eager"))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
