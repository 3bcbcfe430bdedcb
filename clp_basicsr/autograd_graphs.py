"""What torch's graphs have to be asked or told: whether one is walked just now, and that it will be walked twice."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch


def inside_a_backward_pass() -> bool:
    """Say whether this is computed in one, as by torch.utils.checkpoint, which computes again what it did not keep."""
    task = getattr(torch._C, "_current_graph_task_id", lambda: -1)
    return not torch.compiler.is_compiling() and task() != -1


def keep_buffers() -> None:
    """Let graphs that are compiled from now on keep their buffers, so that they can be walked twice, by whomever.

    For good and everywhere: torch looks at it again in the walk, and there in the threads of the GPUs, which from torch
    2.14 on do not see what is set in this one.
    """
    config = _config_with_donated_buffers()
    if config is not None:
        config.donated_buffer = False
        setting: Any = getattr(config, "_config", {}).get("donated_buffer")
        if hasattr(setting, "default"):
            setting.default = False


def walked_twice() -> AbstractContextManager[None]:
    """Let graphs that somebody else compiled, and that are walked inside, keep their buffers for a second walk."""
    config = None if torch.compiler.is_compiling() else _config_with_donated_buffers()
    return nullcontext() if config is None else cast(AbstractContextManager[None], config.patch(donated_buffer=False))


def _config_with_donated_buffers() -> Any | None:
    try:
        from torch._functorch import config
    except ImportError:  # it is torch's own affair; without it, graphs are walked as they are
        return None
    return config if hasattr(config, "donated_buffer") else None
