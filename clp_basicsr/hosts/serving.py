"""What hosts with BasicSR's manner of models and registries have in common: BasicSR and neosr.

Nothing here imports a host; each hands over its own registry and base class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from clp_basicsr.hosts.first_step import check_first_step
from clp_basicsr.hosts.holders import log_entries, remember


def register_losses(registry: Any, host: str, losses: Sequence[type]) -> None:
    """Register losses under their own names: all of them, or none; again changes nothing.

    Args:
        registry: the host's LOSS_REGISTRY.
        host: its name in the error message.
        losses: the classes.

    Raises:
        ValueError: if somebody else has taken a name.
    """
    free = [loss for loss in losses if loss.__name__ not in registry]
    for loss in losses:
        if loss not in free:
            _check_own(registry.get(loss.__name__), host, loss)
    for loss in free:
        registry.register(loss)


def serve_models(base_model: Any, loss_types: Sequence[str], warn: Callable[[str], None]) -> None:
    """Let models be found by the loss they hold, and report its numbers beside their own; once is enough.

    Args:
        base_model: the class that all models of the host inherit.
        loss_types: the names under which option files ask for the loss.
        warn: says something in the run's log.
    """
    if getattr(base_model, "_clp_attached", False):
        return
    remember(base_model)
    base_model.reduce_loss_dict = _reporting(base_model.reduce_loss_dict, loss_types, warn)
    base_model._clp_attached = True


def _check_own(taken: Any, host: str, loss: type) -> None:
    # By name: after a reload the class is another one, but the same.
    if (taken.__module__, taken.__qualname__) != (loss.__module__, loss.__qualname__):
        raise ValueError(
            f"{host}'s LOSS_REGISTRY must be free to take the name {loss.__name__!r}, but it holds {taken.__module__}."
            f"{taken.__qualname__}. Rename that class; the registry is left as it was."
        )


def _reporting(original: Any, loss_types: Sequence[str], warn: Callable[[str], None]) -> Any:
    @functools.wraps(original)
    def reduce_loss_dict(self: Any, loss_dict: Mapping[str, Tensor]) -> Any:
        check_first_step(self, loss_types, warn)
        return original(self, {**loss_dict, **log_entries(self)})

    return reduce_loss_dict
