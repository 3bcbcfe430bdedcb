"""Which iteration it is, in the host's own words: hosts hand a number to every training step.

Schedulers, which tell it otherwise, may be missing, or count epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clp_basicsr import clock
from clp_basicsr.hosts.overrides import wrap_overrides


def attach(
    base_model: Any, iteration: Callable[..., int | None], prepare: Callable[[Any], None] = lambda model: None
) -> None:
    """Let models know the iteration of each step; once is enough.

    Args:
        base_model: the class that all models of the host inherit.
        iteration: returns it, from 1 on, for a model and what its ``optimize_parameters`` is called with; None where
            that does not tell.
        prepare: is called with the model before its step.
    """

    def step(model: Any, optimize_parameters: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        told = iteration(model, *args, **kwargs)
        if told is not None:
            clock.tell(model, told)
        prepare(model)
        return optimize_parameters(*args, **kwargs)

    wrap_overrides(base_model, "optimize_parameters", step)


def of_basicsr(model: Any, *args: Any, **kwargs: Any) -> int | None:
    """Return the iteration of a step of BasicSR's models, whose first argument it is."""
    current_iter = next(iter((*args, *kwargs.values())), None)
    # Somebody's own loop may hand over the same number every time, and step the schedulers.
    return max(current_iter, clock.of_schedulers(model) or 1) if type(current_iter) is int else None
