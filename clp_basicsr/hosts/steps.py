"""Which iteration it is, in the host's own words: hosts hand a number to every training step.

Schedulers, which tell it otherwise, may be missing, or count epochs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from clp_basicsr import clock
from clp_basicsr.hosts.once import first_time
from clp_basicsr.hosts.overrides import wrap_overrides


def attach(base_model: Any) -> None:
    """Let BasicSR's models know the iteration of each step; once is enough.

    Args:
        base_model: BasicSR's ``BaseModel``.
    """
    if first_time(base_model, "optimize_parameters"):
        wrap_overrides(base_model, "optimize_parameters", _tell)


def attach_to_one(model: Any, iteration: Callable[..., int]) -> None:
    """Let the models of one class know the iteration of each step; once is enough.

    Args:
        model: the class, with its ``optimize_parameters``.
        iteration: returns it, from 1 on, for a model and what its step is called with.
    """
    if not first_time(model, "optimize_parameters"):
        return
    original = model.optimize_parameters

    @functools.wraps(original)
    def optimize_parameters(self: Any, *args: Any, **kwargs: Any) -> Any:
        clock.tell(self, iteration(self, *args, **kwargs))
        return original(self, *args, **kwargs)

    model.optimize_parameters = optimize_parameters


def _tell(model: Any, optimize_parameters: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    current_iter = next(iter((*args, *kwargs.values())), None)
    if type(current_iter) is int:
        # Somebody's own loop may hand over the same number every time, and step the schedulers.
        clock.tell(model, max(current_iter, clock.of_schedulers(model) or 1))
    return optimize_parameters(*args, **kwargs)
