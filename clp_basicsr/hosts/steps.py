"""Which iteration it is, in BasicSR's own words: it hands the number to every training step.

The schedulers, which tell it otherwise, may count epochs in models that step them themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clp_basicsr import clock
from clp_basicsr.hosts.once import first_time
from clp_basicsr.hosts.overrides import wrap_overrides


def attach(base_model: Any) -> None:
    """Let models know the iteration of each step; once is enough.

    Args:
        base_model: BasicSR's ``BaseModel``.
    """
    if first_time(base_model, "optimize_parameters"):
        wrap_overrides(base_model, "optimize_parameters", _tell)


def _tell(model: Any, optimize_parameters: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    current_iter = next(iter((*args, *kwargs.values())), None)
    if type(current_iter) is int:
        # Somebody's own loop may hand over the same number every time, and step the schedulers.
        clock.tell(model, max(current_iter, clock.of_schedulers(model) or 1))
    return optimize_parameters(*args, **kwargs)
