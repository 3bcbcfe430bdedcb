"""Which iteration it is, in a way that survives a resume."""

from __future__ import annotations

from typing import Any


class Clock:
    """Reads a host's iteration from its schedulers; where there are none it counts how often it was asked."""

    def __init__(self) -> None:
        """Start at 0."""
        self.asked = 0

    def read(self, model: Any | None) -> int:
        """Return the iteration of ``model``, from 1 on.

        Losses and their buffers are not part of BasicSR's training state, its schedulers are.
        """
        self.asked += 1
        schedulers = getattr(model, "schedulers", None)
        return int(schedulers[0].last_epoch) + 1 if schedulers else self.asked
