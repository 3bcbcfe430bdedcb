"""The kernels for a layer's distances: by Triton's interpreter on the CPU, and on a GPU where there is one.

PyTorch's own norms in float64 are the oracle.
"""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from clp_basicsr.gpu import distances
from clp_basicsr.gpu.distances import Measure

triton = pytest.importorskip("triton")

FLOOR = (0.05, 0.01, 0.8, 1e-6)  # with features of normal noise each branch is taken by some
LAYOUTS = ["contiguous", "channels_last", "tokens", "part of a batch"]


@triton.jit
def loop(out, count):  # type: ignore[no-untyped-def]
    for _ in range(count):
        triton.language.store(out, 1)


@pytest.fixture
def device() -> torch.device:
    """Without a GPU it is the interpreter's, see conftest.py."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    try:
        loop[(1,)](torch.zeros(1), 1)
    except Exception as error:
        pytest.skip(f"Triton's interpreter and numpy do not go together here: {error}")
    return torch.device("cpu")


def maps(shape: tuple[int, ...], layout: str, dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    *leading, channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator).to(device, dtype)
    if layout == "channels_last":
        return values.flatten(0, -4).to(memory_format=torch.channels_last).view(shape)
    if layout == "tokens":  # a transformer's, behind its class token
        tokens = values.new_zeros(*leading, 1 + height * width, channels)
        tokens[..., 1:, :] = values.flatten(-2).transpose(-2, -1)
        return tokens[..., 1:, :].transpose(-2, -1).unflatten(-1, (height, width))
    if layout == "part of a batch":
        return torch.cat((values, values + 1), dim=-4)[..., : leading[-1], :, :, :]
    return values


def norm(difference: Tensor, order: int) -> Tensor:
    return torch.linalg.vector_norm(difference.flatten(-2), order, dim=-1)


def expected(anchor: Tensor, positive: Tensor, negatives: Tensor, how: Measure) -> tuple[Tensor, ...]:
    order, scale, eps, (of_gap, of_size, least_gap, least) = how
    gap = norm((positive - negatives) * scale, order)
    mean, size = (each.mean(-1, keepdim=True) for each in (gap, norm(positive, order)))
    floor = torch.maximum(of_gap * mean + of_size * size, least_gap * size - mean) + least
    to_positive, to_negatives = (norm((anchor - each) * scale + eps, order) for each in (positive, negatives))
    return to_positive, to_negatives, gap, gap + floor


def gradients(results: tuple[Tensor, ...], anchor: Tensor, **keywords: Any) -> Tensor:
    """Of a sum in which every entry has a weight of its own."""
    total = torch.zeros((), dtype=torch.float64, device=anchor.device)
    for each in results[:2]:
        weights = torch.linspace(-1, 2, each.numel(), dtype=torch.float64, device=each.device).view(each.shape)
        total = total + (each.double() * weights).sum()
    (gradient,) = torch.autograd.grad(total, anchor, **keywords)
    return gradient


# The interpreter is slow: an example is good enough as it is found.
@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sets=st.integers(1, 3),
    images=st.integers(1, 3),
    channels=st.integers(1, 70),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 3),
    dtypes=st.tuples(*[st.sampled_from([torch.float32, torch.bfloat16, torch.float16])] * 2),
    how=st.builds(
        Measure,
        st.sampled_from([1, 2]),
        st.sampled_from([1.0, 0.5, 1e-2]),
        st.sampled_from([0.0, 0.1]),
        st.just(FLOOR),
    ),
)
def test_distances_and_gradient(
    device: torch.device,
    sets: int,
    images: int,
    channels: int,
    size: tuple[int, int],
    layouts: tuple[str, str, str],
    dtypes: tuple[torch.dtype, torch.dtype],
    how: Measure,
) -> None:
    shape = (images, channels, *size)
    anchor = maps(shape, layouts[0], dtypes[0], device, 0).requires_grad_()
    positive = maps(shape, layouts[1], dtypes[1], device, 1)
    negatives = maps((sets, *shape), layouts[2], dtypes[1], device, 2)
    exact = anchor.detach().double().requires_grad_()
    wanted = expected(exact, positive.double(), negatives.double(), how)
    seen = distances.measured(anchor, positive, negatives, how)
    for one, other in zip(seen, wanted, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-7)
    found = gradients(seen, anchor)
    assert found.dtype == anchor.dtype
    rounding = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}[anchor.dtype]
    of_exact = gradients(wanted, exact)
    if how.order == 1:  # a difference of about 0 may have either sign
        near = ((exact - positive).abs() < 1e-5) | ((exact - negatives).abs() < 1e-5).any(0)
        found, of_exact = found.masked_fill(near, 0), of_exact.masked_fill(near, 0)
    torch.testing.assert_close(found.double(), of_exact, rtol=rounding, atol=rounding * float(of_exact.abs().max()))


def test_large_maps_in_several_parts(device: torch.device) -> None:
    shape = (1, 3, 300, 410) if device.type == "cpu" else (2, 64, 1024, 768)
    anchor, positive, negative = (maps(shape, "channels_last", torch.float32, device, seed) for seed in range(3))
    how = Measure(2, 1.0, 0.0, FLOOR)
    wanted = expected(anchor.double(), positive.double(), negative[None].double(), how)
    for one, other in zip(distances.measured(anchor, positive, negative[None], how), wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_nothing_where_everything_is_equal(device: torch.device, order: int) -> None:
    anchor = maps((2, 5, 4, 4), "contiguous", torch.float32, device, 0).requires_grad_()
    seen = distances.measured(anchor, anchor.detach(), anchor.detach()[None], Measure(order, 1.0, 0.0, FLOOR))
    assert not any(each.any() for each in seen[:3])
    assert not gradients(seen, anchor).any()


@pytest.mark.parametrize("order", [1, 2])
def test_a_nan_stays_one(device: torch.device, order: int) -> None:
    """A training that diverges must not look well."""
    anchor = maps((1, 2, 4, 4), "contiguous", torch.float32, device, 0)
    anchor[0, 1, 2, 3] = torch.nan
    positive = maps((1, 2, 4, 4), "contiguous", torch.float32, device, 1)
    seen = distances.measured(anchor.requires_grad_(), positive, positive[None], Measure(order, 1.0, 0.0, FLOOR))
    assert seen[0].isnan().tolist() == [[False, True]]
    assert gradients(seen, anchor).isnan()[0, 1, 2, 3]


@pytest.mark.parametrize("order", [1, 2])
def test_second_derivative(device: torch.device, order: int) -> None:
    """A gradient penalty's."""
    how = Measure(order, 0.5, 1e-6, FLOOR)
    anchor = maps((2, 3, 4, 5), "contiguous", torch.float32, device, 0).requires_grad_()
    positive = maps((2, 3, 4, 5), "contiguous", torch.float32, device, 1)
    negatives = maps((2, 2, 3, 4, 5), "contiguous", torch.float32, device, 2)
    exact = anchor.detach().double().requires_grad_()
    found = []
    for leaf, results in (
        (anchor, distances.measured(anchor, positive, negatives, how)),
        (exact, expected(exact, positive.double(), negatives.double(), how)),
    ):
        first = gradients(results, leaf, create_graph=True)
        found.append(torch.autograd.grad((first**3).sum() + 0 * leaf.sum(), leaf)[0])
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-4, atol=1e-5)


def test_not_on_the_cpu() -> None:
    plain = torch.zeros(1, 2, 4, 4)
    assert not distances.can_measure(plain, plain, plain[None])


COMPILED = """
import inspect
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from clp_basicsr.gpu import kernels

maps, tiles = ("anchor", "positive", "negatives"), {"rows": 32, "columns": 64}
constants = "constexprs" if "constexprs" in inspect.signature(ASTSource).parameters else "constants"
for kernel, of_maps, of_numbers, floats, more in (
    (kernels.sums, maps, ("out",), ("scale", "eps"), {}),
    (kernels.norms, (), ("sums", "to_positive", "to_negatives", "gap", "unit"), ("of_gap", "of_size", "least"), {}),
    (kernels.gradient, (*maps, "out"), ("to_positive", "to_negatives", "of_positive", "of_negatives"),
     ("scale", "eps"), {"tiny": 1e-19}),
):
    for maps_are, order, architecture in (("bf16", 2, 80), ("fp32", 1, 90)):
        fixed = {"order": order, **tiles, **more}
        types = dict.fromkeys(of_maps, f"*{maps_are}") | dict.fromkeys(of_numbers, "*fp32")
        types |= dict.fromkeys(floats, "fp32")
        names = list(inspect.signature(kernel.fn).parameters)
        signature = {name: "constexpr" if name in fixed else types.get(name, "i32") for name in names}
        built = compile(ASTSource(kernel, signature, **{constants: fixed}), target=GPUTarget("cuda", architecture, 32))
        assert built.asm["cubin"]
"""

ONE_GRAPH_FOR_ALL_SIZES = """
import torch
import torch._functorch.partitioners
import torch.utils._triton
from torch._dynamo.backends.common import aot_autograd

torch.utils._triton.has_triton = lambda *_, **__: True  # dynamo looks for a GPU before it looks at a kernel
from clp_basicsr.compiling import terms_by_layer
from clp_basicsr.criteria.triplet import RelativeTriplet
from clp_basicsr.distances import DISTANCES
from clp_basicsr.gpu import distances

distances.can_measure = lambda *_: True
graphs = []
traced = aot_autograd(
    fw_compiler=lambda graph, _: graph, partition_fn=torch._functorch.partitioners.min_cut_rematerialization_partition
)

def nothing(graph, inputs):
    graphs.append(graph)
    if torch.__version__ >= (2, 11):  # before, this needs a GPU
        traced(graph, inputs)
    output = next(node for node in graph.graph.nodes if node.op == "output")
    return lambda *_: tuple(node.meta["example_value"].new_zeros(3) for node in output.args[0])

call = torch.compile(terms_by_layer, fullgraph=True, backend=nothing)
criterion = RelativeTriplet(DISTANCES["l2"])
for size in (128, 112, 96, 40, 8):  # in several parts, and in one
    def maps(channels):
        return torch.zeros(2, channels, size, size).to(memory_format=torch.channels_last)
    anchors = {"one": maps(64).requires_grad_(), "two": maps(32).requires_grad_()}
    references = {name: (torch.zeros_like(each), torch.zeros_like(each)[None]) for name, each in anchors.items()}
    call(criterion, {"one": 1.0, "two": 0.5}, anchors, references)
    assert len(graphs) == 1 + (size != 128), size
"""


@pytest.mark.parametrize("code", [COMPILED, ONE_GRAPH_FOR_ALL_SIZES], ids=["kernels", "dynamo"])
def test_compiles_without_a_gpu(code: str) -> None:
    """For GPUs that are not here; and in one graph, which a third size does not compile again."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_compiler_it_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(distances, "is_nvidias", lambda _: True)
    monkeypatch.setattr(distances, "_measure", fail)
    monkeypatch.setattr(distances, "_READY", {})
    with pytest.warns(UserWarning, match=r"Failed to find C compiler\..*same values, in more time.*gcc"):
        assert not distances.make_ready(torch.device("cpu"))
    assert not distances.make_ready(torch.device("cpu"))  # said once


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 3, 1, 1)], ids=["positions", "channels"])
@pytest.mark.parametrize(("step", "can"), [(2**30 - 1, True), (2**30, False)])
def test_maps_of_more_entries_than_32_bits_count_are_left_alone(
    shape: tuple[int, ...], step: int, can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "make_ready", lambda device: True)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    plain = torch.empty(shape, device="meta")
    far_apart = torch.empty_strided(shape, (3 * step, step, shape[-1] * step, step), device="meta")
    assert distances.can_measure(plain, plain, plain[None])
    for maps in ((far_apart, plain, plain[None]), (plain, far_apart, plain[None]), (plain, plain, far_apart[None])):
        assert distances.can_measure(*maps) is can
