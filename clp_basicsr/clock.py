"""Which iteration it is, in a way that survives a resume."""

from __future__ import annotations

from typing import Any


def tell(model: Any, iteration: int) -> None:
    """Tell ``model`` its iteration, from 1 on: for hosts that hand it to their models in every step."""
    model._clp_iteration = iteration


def iteration_of(model: Any | None) -> int | None:
    """Return the iteration that a model was told, or that its schedulers tell, from 1 on; None where neither is."""
    told: int | None = getattr(model, "_clp_iteration", None)
    return of_schedulers(model) if told is None else told


def of_schedulers(model: Any | None) -> int | None:
    """Return what a model's schedulers make it, from 1 on; None where nobody knows."""
    try:
        return int(model.schedulers[0].last_epoch) + 1  # type: ignore[union-attr]
    except (AttributeError, LookupError, TypeError):  # a model without schedulers, or with some of another make
        return None


class Clock:
    """Reads what a model was told, or its schedulers; where there are none it counts its ticks."""

    def __init__(self) -> None:
        """Start before the first tick."""
        self.ticks = 0

    def tick(self) -> None:
        """Count a call that trains."""
        self.ticks += 1

    def read(self, model: Any | None) -> int:
        """Return the iteration of ``model``, from 1 on.

        Losses and their buffers are not part of BasicSR's training state, its schedulers are.
        """
        known = iteration_of(model)
        return max(1, self.ticks) if known is None else known
