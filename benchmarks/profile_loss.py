"""Where the time of a step goes: torch's profiler on what `clp-basicsr bench` can measure.

    python -m benchmarks.profile_loss --contenders vgg:bfloat16 dinov2_base:bfloat16 --batch 16 --size 256

A GPU whose kernels take less than the step does waits for the CPU that launches them.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch.profiler import profile

from clp_basicsr.bench.contenders import build
from clp_basicsr.bench.measuring import Call, rounds, spread, training_step


def profiled(call: Call, device: torch.device) -> Any:
    """Return the profile of one call."""
    with profile() as measured:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return measured


def summary(name: str, milliseconds: float, measured: Any, device: torch.device) -> str:
    """Say how long a step takes, and for how much of it the device computes."""
    on_gpu = device.type == "cuda"
    rows = [row for row in measured.key_averages() if (row.device_type.name == "CPU") != on_gpu]
    busy = sum(row.self_device_time_total if on_gpu else row.self_cpu_time_total for row in rows) / 1e3
    what = f"{sum(row.count for row in rows)} kernels of together" if on_gpu else "operations of together"
    return f"{name}: a step takes {milliseconds:.1f} ms, {what} {busy:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", default=["vgg"], help="as in `clp-basicsr bench` (default: vgg)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rows", type=int, default=12, help="rows of the table (default: 12)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True  # as BasicSR's train_pipeline does
    order = f"self_{device.type}_time_total"
    for name in options.contenders:
        call = training_step(build(name, device), options.batch, options.size, device)
        seconds = spread(rounds({name: call}, count=5, warm_up=3, device=device)[name])
        measured = profiled(call, device)
        print(measured.key_averages().table(sort_by=order, row_limit=options.rows, max_name_column_width=60))
        print(summary(name, seconds.median * 1e3, measured, device), flush=True)


if __name__ == "__main__":
    main()
