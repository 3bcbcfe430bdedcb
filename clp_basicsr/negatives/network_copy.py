"""A copy of a network in training that shares nothing with it, and tells nobody what it computes."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from clp_basicsr.containers import contents
from clp_basicsr.messages import reason


def frozen_copy(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode, without gradient and without the hooks that others have hung on the network.

    Those would be called for the copy, too: whoever collects features there would get two of each. Hooks that compute
    weights stay: torch's own (``weight_norm``, ``spectral_norm``), and those before the pass of a module that holds a
    tensor which is neither parameter nor buffer.

    Raises:
        TypeError: if it holds what cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in network.modules():
        has_computed = any(isinstance(value, Tensor) for value in vars(module).values())
        for name, value in vars(module).items():
            computes = has_computed and name == "_forward_pre_hooks"
            if name.endswith("_hooks") and isinstance(value, dict) and not computes:
                memo[id(value)] = type(value)((key, hook) for key, hook in value.items() if _is_torchs(hook))
            # What a forward pass left, as weight_norm does: torch copies no tensor that is part of a graph.
            tensors = (each for each in contents(value) if isinstance(each, Tensor))
            memo |= {id(each): each.detach().clone() for each in tensors if not each.is_leaf}
    try:
        copied: nn.Module = copy.deepcopy(network, memo)
    except (TypeError, RuntimeError, ValueError) as error:
        raise TypeError(f"A {type(network).__name__} cannot be copied: {reason(error)}") from error
    return copied.eval().requires_grad_(False)


def _is_torchs(hook: Any) -> bool:
    return type(hook).__module__.startswith("torch.") or str(getattr(hook, "__module__", "")).startswith("torch.")
