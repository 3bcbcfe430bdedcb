"""What ``compile: true`` makes of the loss for a GPU, on a machine without one.

    python -m benchmarks.compiled_without_gpu --model vgg --precision bfloat16 --sizes 128 112 96

Inductor is told of an H100 that is not there. It lowers its graphs, and Triton compiles their kernels to machine code;
then nothing runs, and what would come out are zeros of the right sizes. So this shows that it compiles, in how many
graphs and kernels, and for which sizes anew, but neither values nor time. It takes the place of some of torch's
internals, those of 2.11 to 2.15, for this process.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import warnings
from types import SimpleNamespace
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor, fx

_H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=80 * 2**30,
    warp_size=32,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 * 2**20,
    clock_rate=1980000,
    memory_clock_rate=2619000,
    memory_bus_width=5120,
    gcnArchName="",
    is_integrated=0,
)
_GPU = torch.device("cuda", 0)

_made = {"graphs": 0, "kernels": 0, "strides": 0}


class _Driver:
    """What Triton asks a driver for before it compiles."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 10 * _H100.major + _H100.minor, _H100.warp_size)

    def get_current_device(self) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return _GPU


def pretend() -> None:
    """Let torch find an H100 wherever Inductor looks for one; to be called before anything imports dynamo."""
    results = {
        "get_device_properties": _H100,
        "get_device_capability": (_H100.major, _H100.minor),
        "device_count": 1,
        "current_device": 0,
        "_exchange_device": 0,
        "_maybe_exchange_device": 0,
        "get_rng_state": torch.zeros(1, dtype=torch.uint8),
        "set_rng_state": None,
        "synchronize": None,
        "_lazy_init": None,
    }
    for name, result in results.items():
        setattr(torch.cuda, name, _returning(result))
    internals: Any = torch._C
    internals._cuda_getCurrentRawStream = _returning(0)
    internals._conv_determine_backend_memory_format = _layout_of_cudnn
    _module("_subclasses.fake_tensor").init_gpu_context = _returning(None)
    _module("utils._triton").has_triton = _returning(True)
    _module("_inductor.runtime.triton_helpers").set_driver_to_gpu = _returning(None)
    _module("_inductor.runtime.triton_heuristics").CachingAutotuner._make_launchers = _count_kernel
    config = _module("_inductor.config")
    config.compile_threads = 1
    config.force_disable_caches = True
    compile_fx = _module("_inductor.compile_fx")
    original = compile_fx.compile_fx

    def compile_for_gpu(graph: Any, inputs: Any, **settings: Any) -> Any:
        return original(graph, inputs, **{"inner_compile": _compiled_for_gpu, **settings})

    compile_fx.compile_fx = compile_for_gpu
    importlib.import_module("triton").runtime.driver.set_active(_Driver())


def _returning(result: Any) -> Any:
    """Return a function of its own: dynamo tells by the function which of torch's it is."""

    def function(*_: Any, **__: Any) -> Any:
        return result

    return function


def _count_kernel(kernel: Any, *_: Any, **__: Any) -> None:
    _made["kernels"] += 1
    kernel.launchers = [_returning(None)]


def _module(name: str) -> Any:
    return importlib.import_module(f"torch.{name}")


def _layout_of_cudnn(images: Tensor, weight: Tensor, _: Any) -> torch.memory_format:
    """As ``cudnn_conv_suggest_memory_format``; without a driver torch would not take cuDNN for half precision."""
    last = any(each.dim() == 4 and each.stride(1) == 1 < each.shape[1] for each in (images, weight))
    return torch.channels_last if last else torch.contiguous_format


def _compiled_for_gpu(graph: fx.GraphModule, inputs: list[Any], **settings: Any) -> Any:
    """Compile a graph that was traced on the CPU, and return a function that gives zeros of its outputs' sizes."""
    from torch._guards import detect_fake_mode
    from torch._inductor.compile_fx import compile_fx_inner
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    given = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    (output,) = graph.graph.find_nodes(op="output")
    results = [None if node is None else node.meta["val"] for node in output.args[0]]
    moved = copy.deepcopy(graph)
    for node in moved.graph.nodes:
        node.args, node.kwargs = (fx.node.map_aggregate(each, _on_gpu) for each in (node.args, node.kwargs))
    moved.recompile()
    mode = detect_fake_mode(inputs)
    assert mode is not None
    with mode:
        on_gpu = [_like(each) if isinstance(each, Tensor) else each for each in inputs]
    FakeTensorProp(moved, mode).propagate(*on_gpu)
    is_available, torch.cuda.is_available = torch.cuda.is_available, _returning(True)
    try:
        compile_fx_inner(moved, on_gpu, **settings)
    finally:
        torch.cuda.is_available = is_available
    _made["graphs"] += 1
    _made["strides"] += _strides_of_one_size(results)

    def run(arguments: list[Any]) -> list[Any]:
        sizes = _sizes(given, arguments)
        arguments.clear()
        return [_zeros(each, sizes) for each in results]

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


def _strides_of_one_size(results: list[Any]) -> int:
    """Return how many tensors that a graph for all sizes saves lie otherwise than traced.

    The backward pass takes their strides for constants, and fails at another size.
    """
    from torch._guards import TracingContext

    context = TracingContext.try_get()
    real = (context.output_strides if context else None) or []
    traced = [each.stride() if isinstance(each, Tensor) else () for each in results]
    general = any(isinstance(each, torch.SymInt) for strides in traced for each in strides)
    return sum(
        general and strides is not None and tuple(map(int, strides)) != tuple(_hint(each) for each in own)
        for strides, own in zip(real, traced)
    )


def _hint(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _on_gpu(argument: Any) -> Any:
    return _GPU if isinstance(argument, torch.device) else argument


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_GPU)


def _sizes(given: list[Any], arguments: list[Any]) -> dict[sympy.Symbol, int]:
    found: dict[sympy.Symbol, int] = {}
    for traced, real in zip(given, arguments):
        pairs = zip(traced.shape, real.shape) if isinstance(traced, Tensor) else [(traced, real)]
        for symbol, size in pairs:
            if isinstance(symbol, torch.SymInt) and isinstance(symbol.node.expr, sympy.Symbol):
                found.setdefault(symbol.node.expr, int(size))
    return found


def _zeros(traced: Any, sizes: dict[sympy.Symbol, int]) -> Any:
    def known(size: Any) -> int:
        return size if isinstance(size, int) else int(size.node.expr.subs(sizes))

    if not isinstance(traced, Tensor):
        return None if traced is None else known(traced)
    shape, strides = (tuple(map(known, each)) for each in (traced.shape, traced.stride()))
    return torch.empty_strided(shape, strides, dtype=traced.dtype).zero_()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vgg")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 112, 96])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    pretend()
    from clp_basicsr import CLPLoss
    from clp_basicsr import loss as loss_module
    from clp_basicsr.gpu import distances

    loss = CLPLoss(options.model, weights="random", precision=options.precision, compile=True, diagnostics=False)
    type(loss.extractor).gains_from_compilation = _returning(True)  # type: ignore[method-assign]
    distances.can_measure = _returning(True)
    loss_module.make_ready = _returning(True)  # type: ignore[attr-defined]
    print(f"torch {torch.__version__}, {options.model}, {options.precision}, batch {options.batch}")
    print("| crop | new graphs | their kernels | strides of one size |\n|---|---|---|---|")
    for size in options.sizes:
        _made.update(graphs=0, kernels=0, strides=0)
        sr, gt, lr = (torch.rand(options.batch, 3, side, side) for side in (size, size, size // 4))
        loss(sr.requires_grad_(), gt, lr).backward()
        print(f"| {size} | {_made['graphs']} | {_made['kernels']} | {_made['strides']} |", flush=True)


if __name__ == "__main__":
    main()
