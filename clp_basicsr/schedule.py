"""When the loss starts, and how it grows to its full weight."""

from __future__ import annotations

from dataclasses import dataclass

from clp_basicsr import arguments


@dataclass
class Schedule:
    """Nothing up to iteration ``start_iter``, then linearly to the full weight in ``warmup_iter`` iterations."""

    start_iter: int = 0
    warmup_iter: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        self.start_iter = arguments.count("start_iter", self.start_iter, zero_allowed=True)
        self.warmup_iter = arguments.count("warmup_iter", self.warmup_iter, zero_allowed=True)

    @property
    def always_full(self) -> bool:
        """Whether there is nothing to schedule."""
        return not self.start_iter and not self.warmup_iter

    def strength(self, iteration: int) -> float:
        """Return the share of the full weight in an iteration, which count from 1 on; in [0, 1]."""
        since = iteration - self.start_iter
        return min(1.0, max(0, since) / max(1, self.warmup_iter))
