"""What a GPU has arithmetic for."""

from __future__ import annotations

import torch


def has_modern_tensor_cores(device: torch.device) -> bool:
    """Say whether it is a GPU with arithmetic for bfloat16 and TF32: compute capability 8.0 and later."""
    return device.type == "cuda" and compute_capability(device) >= (8, 0)


def compute_capability(device: torch.device) -> tuple[int, int]:
    """Return the compute capability of a GPU, inside of compiled code too."""
    # Not `get_device_capability`, which dynamo cannot trace; "auto" is decided inside of a compiled step.
    properties = torch.cuda.get_device_properties(device)
    return properties.major, properties.minor


def is_nvidias(device: torch.device) -> bool:
    """Say whether it is one of NVIDIA's of that kind, where what `clp_basicsr.gpu` does was measured."""
    return torch.version.cuda is not None and has_modern_tensor_cores(device)
