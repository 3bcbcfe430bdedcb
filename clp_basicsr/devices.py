"""Devices as a person names them: on the command line, or in an option file."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clp_basicsr.messages import not_a_choice


def chosen_device(given: str | None, kinds: Sequence[str] | None = None) -> torch.device:
    """Return the device that is asked for.

    Args:
        given: as torch names it; None for a GPU of CUDA where there is one, the CPU elsewhere.
        kinds: what it can be at all, such as "cpu"; None for all that torch knows.

    Raises:
        ValueError: if this machine has no such device.
    """
    if given is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    allowed = [name for name in _devices() if kinds is None or name.split(":")[0] in kinds]
    if str(given) not in allowed:
        raise ValueError(not_a_choice("device", given, allowed, " on this machine"))
    return torch.device(given)


def _devices() -> list[str]:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        return ["cpu"]
    count = torch.accelerator.device_count()
    return ["cpu", accelerator.type, *(f"{accelerator.type}:{index}" for index in range(count))]
