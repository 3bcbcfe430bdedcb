"""What must be the same in all processes of a distributed run, said where it is not."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import Any

import torch.distributed

LoadState = Callable[[dict[str, Any]], dict[str, Any] | None]


def alike_on_all_ranks(load: LoadState) -> LoadState:
    """Return ``load``, which reads the training state, with a check that all processes read the same one.

    A process that finds none would start at iteration 0 beside the others, and with weights of its
    own: DDP makes them equal only before BasicSR reads any from a file.
    """

    @functools.wraps(load)
    def load_alike(opt: dict[str, Any]) -> dict[str, Any] | None:
        state = load(opt)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            _check_start(None if state is None else state["iter"])
        return state

    return load_alike


def _check_start(iteration: int | None) -> None:
    starts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(starts, (socket.gethostname(), iteration))
    if len({start for _, start in starts}) > 1:
        found = [
            f"rank {rank} on {host} found {'none' if start is None else f'that of iteration {start}'}"
            for rank, (host, start) in enumerate(starts)
        ]
        raise RuntimeError(
            f"All processes must resume from the same training state, but {', '.join(found)}. Give every machine the "
            "experiment's folder, a shared one or a copy, or start afresh on all of them."
        )
