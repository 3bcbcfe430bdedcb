"""Which iteration it is, in a way that survives a resume."""

from __future__ import annotations

from typing import Any


def tell(model: Any, iteration: int) -> None:
    """Tell ``model`` its iteration, from 1 on: for hosts that hand it to their models in every step."""
    model._clp_iteration = iteration


class Clock:
    """Reads what a model was told, or its schedulers; where there are none it counts how often it was asked."""

    def __init__(self) -> None:
        """Start at 0."""
        self.asked = 0

    def read(self, model: Any | None) -> int:
        """Return the iteration of ``model``, from 1 on.

        Losses and their buffers are not part of BasicSR's training state, its schedulers are.
        """
        self.asked += 1
        told: int | None = getattr(model, "_clp_iteration", None)
        if told is not None:
            return told
        schedulers = getattr(model, "schedulers", None)
        return int(schedulers[0].last_epoch) + 1 if schedulers else self.asked
