"""The precision that a network runs in: what can be asked for, and what a device is good at."""

from __future__ import annotations

import torch
from torch import nn

from clp_basicsr.gpu.capability import compute_capability, has_modern_tensor_cores
from clp_basicsr.messages import warn

PRECISIONS: dict[str, torch.dtype | None] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "auto": None,
}
"""By name; None is `automatic_precision`."""

_SHORT = {"bfloat16": "bf16", "float16": "fp16"}


def automatic_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 on GPUs that have arithmetic for it, float32 elsewhere."""
    return torch.bfloat16 if has_modern_tensor_cores(device) else torch.float32


def warn_if_emulated(precision: str, device: torch.device) -> None:
    """Say, once, that this device has to emulate half precision, which is slower there than float32."""
    if precision == "bfloat16" and device.type == "cuda" and not has_modern_tensor_cores(device):
        warn(
            f"`precision: bfloat16` needs a GPU of compute capability 8.0 or later to be fast, but this one has "
            f"{'.'.join(map(str, compute_capability(device)))}. Use `precision: float16` there."
        )
    if precision in _SHORT and device.type == "cpu" and not _cpu_computes_in(precision):
        warn(
            f"`precision: {precision}` needs a CPU with arithmetic for it to be fast, but this one has none, and takes "
            "many times as long as in float32. Use `precision: auto`: float32 here, bfloat16 on a GPU that has it."
        )


def round_weights(network: nn.Module, precision: str) -> None:
    """Hold the weights of convolutions and linear layers in half precision, if the network runs in one.

    Autocast would round the same weights to the same numbers, but at every call and for every layer: a sixth of all
    that a step of DINOv2 asks a GPU for, and in the backward pass one more copy of the weights in memory. With "auto"
    it is not known yet which device will compute.
    """
    dtype = PRECISIONS[precision]
    if dtype is None or dtype == torch.float32:
        return
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            for name, tensor in module.named_buffers(recurse=False):
                setattr(module, name, tensor.to(dtype))


def _cpu_computes_in(precision: str) -> bool:
    # What torch's Inductor asks; builds without oneDNN cannot say.
    answer = getattr(torch.ops.mkldnn, f"_is_mkldnn_{_SHORT[precision]}_supported", None)
    return answer is None or bool(answer())
