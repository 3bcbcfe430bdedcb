"""Gradient checkpointing: activations inside a block are computed again in the backward pass, not kept.

Transformers' own works in training mode only, which a frozen network is never in.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Return ``function(*arguments, **keywords)``, of which only the arguments are kept for the backward pass."""
    if not torch.is_grad_enabled():
        return function(*arguments, **keywords)
    # A frozen network draws no random numbers, and saving their state would wait for the GPU.
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False, **keywords)


def recompute_blocks(network: nn.Module) -> int:
    """Let each block of ``network`` be a checkpoint, and return how many there are; module names stay as they are."""
    found = list(blocks(network))
    for block in found:
        _be_a_checkpoint(block)
    return len(found)


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the entries of the outermost lists of modules, which is what networks keep their blocks in."""
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from (entry for entry in child if any(True for _ in entry.children()))
        else:
            yield from blocks(child)


def _be_a_checkpoint(block: nn.Module) -> None:
    vars(block)["forward"] = functools.partial(_forward, block)
    # DataParallel's replicas take over what stands in __dict__, and with it the forward of the original.
    vars(block)["_replicate_for_data_parallel"] = functools.partial(_replicated, block)


def _replicated(block: nn.Module) -> Any:
    replica = type(block)._replicate_for_data_parallel(block)  # type: ignore[no-untyped-call]
    # There is one for each pass; a strong reference to itself would keep its weights until garbage is collected.
    vars(replica)["forward"] = functools.partial(_forward_of, weakref.ref(replica))
    return replica


def _forward_of(block: weakref.ref[nn.Module], *arguments: Any, **keywords: Any) -> Any:
    alive = block()
    assert alive is not None  # somebody is calling it
    return _forward(alive, *arguments, **keywords)


def _forward(block: nn.Module, *arguments: Any, **keywords: Any) -> Any:
    return recomputed(functools.partial(type(block).forward, block), *arguments, **keywords)
