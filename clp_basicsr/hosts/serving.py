"""What hosts with BasicSR's manner of models have in common: BasicSR and neosr.

Nothing here imports a host; each hands over its own base class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from clp_basicsr.hosts.first_step import check_first_step
from clp_basicsr.hosts.holders import log_entries, remember
from clp_basicsr.hosts.once import first_time


def serve_models(base_model: Any, loss_types: Sequence[str], warn: Callable[[str], None]) -> None:
    """Let models be found by the loss they hold, and report its numbers beside their own; once is enough.

    Args:
        base_model: the class that all models of the host inherit.
        loss_types: the names under which option files ask for the loss.
        warn: says something in the run's log.
    """
    remember(base_model)
    if first_time(base_model, "reduce_loss_dict"):
        base_model.reduce_loss_dict = _reporting(base_model.reduce_loss_dict, loss_types, warn)


def _reporting(original: Any, loss_types: Sequence[str], warn: Callable[[str], None]) -> Any:
    @functools.wraps(original)
    def reduce_loss_dict(self: Any, loss_dict: Mapping[str, Tensor]) -> Any:
        check_first_step(self, loss_types, warn)
        return original(self, {**loss_dict, **log_entries(self)})

    return reduce_loss_dict
