"""Time and memory. The machine may be shared: contenders take turns, and only ratios within a round count."""

from __future__ import annotations

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from clp_basicsr.bench.contenders import Contender

Call = Callable[[], object]

SCALE = 4
"""How many times larger GT is than LR."""
_HEAD_START = 200_000_000
"""Cycles of a GPU, about a tenth of a second: more than a CPU needs to hand over the step of a loss."""


class Spread(NamedTuple):
    """Quartiles."""

    low: float
    median: float
    high: float


def spread(values: list[float]) -> Spread:
    """Return the quartiles of at least one value."""
    return Spread(*statistics.quantiles(values, method="inclusive")) if len(values) > 1 else Spread(*values * 3)


def images(batch: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return SR, GT ``(batch, 3, size, size)`` and LR, smaller by `SCALE`, in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    sides = (size, size, max(1, size // SCALE))
    sr, target, lr = (torch.rand(batch, 3, side, side, generator=generator).to(device) for side in sides)
    return sr, target, lr


def training_step(contender: Contender, batch: int, size: int, device: torch.device) -> Call:
    """Return a forward and a backward pass."""
    sr, target, lr = images(batch, size, device)

    def call() -> None:
        leaf = sr.detach().requires_grad_()
        contender.step(leaf, target, lr).backward()  # type: ignore[no-untyped-call]

    return call


def rounds(
    calls: Mapping[str, Call], count: int, warm_up: int, device: torch.device, *, queued: bool = False
) -> dict[str, list[float]]:
    """Return the seconds of each call in each of ``count`` rounds; each begins with another call.

    With ``queued`` a GPU is kept from beginning until the CPU has handed over what it can of the call: what the GPU
    needs where it sets the pace, as behind a large network. Otherwise a call takes as long as the slower of both.
    """
    names = list(calls)
    for name in names:
        for _ in range(warm_up):
            calls[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(count):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(_seconds(calls[name], device, _HEAD_START if queued else 0))
    return seconds


def _seconds(call: Call, device: torch.device, wait: int) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    with torch.cuda.device(device):  # events are of the current device's stream
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        if wait:
            torch.cuda._sleep(wait)  # type: ignore[no-untyped-call]
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1000


def peak_bytes(call: Call, device: torch.device) -> int:
    """Return how much more memory is in use at the worst moment of a call than before it."""
    call()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    profile.start()
    call()
    profile.stop()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    in_use = most = 0
    for event in sorted((each for each in events if each.get("name") == "[memory]"), key=lambda each: each["ts"]):
        in_use += event["args"]["Bytes"]
        most = max(most, in_use)
    return most
