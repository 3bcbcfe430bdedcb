"""Arithmetic, memory and operations of a step, counted on tensors without values: for any size, on any machine.

What is counted is what the code asks for, the same on every device. An allocator's rounding and a convolution's
workspace come on top, and how long the arithmetic takes is another question.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from clp_basicsr.bench import training
from clp_basicsr.bench.contenders import Contender
from clp_basicsr.bench.measuring import Call

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Count:
    """One call."""

    flops: int
    """Floating point operations of convolutions, matrix products and attention; a multiplication and the addition
    after it are two."""
    peak: int
    """Bytes in use at the worst moment, beyond those before the call."""
    operations: int
    """Functions of PyTorch that write to memory, as the CPU's code calls them: what there is to launch on a GPU."""

    def over(self, rival: Count) -> tuple[float, float]:
        """Return both as shares of a rival's."""
        return self.flops / rival.flops, self.peak / rival.peak


@dataclass(frozen=True)
class Row:
    """One contender at one size."""

    name: str
    batch: int
    size: int
    count: Count
    rival: str
    over: tuple[float, float] | None
    """Arithmetic and memory over the rival's; None where that was not counted."""


def rows(contenders: Sequence[Contender], step: str | None, settings: Sequence[tuple[int, int]]) -> list[Row]:
    """Count a forward and a backward pass of each contender, or a whole training step of a network with each.

    Args:
        contenders: what to count; their weights lose their values.
        step: a key of `clp_basicsr.bench.training.NETWORKS`, or None.
        settings: batch size, and height and width of a crop in pixels.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for each in contenders:
        without_values(each.network, mode)
    network = None if step is None else without_values(training.build_network(step), mode)
    found: list[Row] = []
    for batch, size in settings:
        with mode:
            calls, rivals = training.calls(step, network, contenders, batch, size, _CPU)
            counts = {name: count(call) for name, call in calls.items()}
        for name, own in counts.items():
            rival = counts.get(rivals[name])
            found.append(Row(name, batch, size, own, rivals[name], None if rival is None else own.over(rival)))
    return found


def without_values(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Replace every weight of ``module`` by one that has a shape and a type only; return the module itself."""
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                each._parameters[name] = nn.Parameter(mode.from_tensor(parameter.detach()), parameter.requires_grad)
        for name, buffer in each._buffers.items():
            each._buffers[name] = None if buffer is None else mode.from_tensor(buffer)
    return module


def count(call: Call) -> Count:
    """Count one call, after another one that settles layouts and states; both inside a `FakeTensorMode`."""
    call()
    flops = FlopCounterMode(display=False)
    with flops, Tally() as tally:
        call()
    return Count(flops.get_total_flops(), tally.peak, tally.operations)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown."""
    head = "| loss | batch, crop | GFLOP | over … | | peak MB | memory | operations |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        arithmetic, memory = ("", "") if row.over is None else map("{:.2f}".format, row.over)
        own = row.count
        numbers = (
            f"{own.flops / 1e9:.1f}",
            row.rival,
            arithmetic,
            f"{own.peak / 1e6:.0f}",
            memory,
            str(own.operations),
        )
        lines.append(f"| {' | '.join([row.name, f'{row.batch}, {row.size}', *numbers])} |")
    return "\n".join(lines)


class Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of all tensors that were made inside and are still alive, and counts what wrote to memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.in_use = 0
        self.peak = 0
        self.operations = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        # Views and results in place take no memory: theirs was given.
        known = {each.untyped_storage()._cdata for each in _tensors((arguments, keywords))}
        returned = function(*arguments, **(keywords or {}))
        writes = function._schema.is_mutable
        for each in _tensors(returned):
            storage = each.untyped_storage()
            if storage._cdata not in known:
                known.add(storage._cdata)
                writes = writes or not function.name().startswith("aten::empty")
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes()).atexit = False
        self.operations += writes
        return returned

    def _add(self, size: int) -> None:
        self.in_use += size
        self.peak = max(self.peak, self.in_use)


def _tensors(tree: object) -> Iterator[Tensor]:
    return (each for each in tree_leaves(tree) if isinstance(each, Tensor))
