"""Where the time of a step goes, by torch's profiler.

A GPU whose kernels take less than the step does waits for the CPU that launches them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import profile

from clp_basicsr.bench.contenders import Contender
from clp_basicsr.bench.measuring import Call, rounds, spread, training_step

_ROWS = 12


def report(contender: Contender, batch: int, size: int, device: torch.device) -> str:
    """Return the table of the costliest operations or kernels, and a line on the whole step."""
    call = training_step(contender, batch, size, device)
    seconds = spread(rounds({contender.name: call}, count=5, warm_up=3, device=device)[contender.name])
    measured = _profiled(call, device)
    order = f"self_{device.type}_time_total"
    table = measured.key_averages().table(sort_by=order, row_limit=_ROWS, max_name_column_width=60)
    whole = f"{contender.name}, batch {batch}, {size} px: a step takes {seconds.median * 1e3:.1f} ms"
    return f"{table}\n{whole}, {_busy(measured, device)}"


def _profiled(call: Call, device: torch.device) -> Any:
    with profile() as measured:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return measured


def _busy(measured: Any, device: torch.device) -> str:
    on_gpu = device.type == "cuda"
    rows = [row for row in measured.key_averages() if (row.device_type.name == "CPU") != on_gpu]
    milliseconds = sum(row.self_device_time_total if on_gpu else row.self_cpu_time_total for row in rows) / 1e3
    what = f"{sum(row.count for row in rows)} kernels of" if on_gpu else "operations of"
    return f"{what} together {milliseconds:.1f} ms"
