"""How sure a mean over seeds and photos is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def side(self) -> int:
        """1 if the whole interval is above 0, -1 if it is below, 0 if it holds 0."""
        return int(self.low > 0) - int(self.high < 0)


def interval(values: NDArray[np.float64], confidence: float = 0.95, draws: int = 20_000, seed: int = 0) -> Interval:
    """Return the mean of ``values`` and its percentile bootstrap interval.

    Seeds and photos are drawn anew, with replacement, each on its own: a difference has to hold for other seeds
    and for other photos. Give differences of pairs (same seed, same photo) to compare two arms.

    Args:
        values: one number for each seed and photo, ``(S, P)``.
        confidence: share of the draws inside the interval.
        draws: how many means are drawn.
        seed: of the draws.
    """
    chance = np.random.default_rng(seed)
    seeds, photos = values.shape
    # How often each is drawn, as shares: a drawn mean is then a product of two vectors and the values.
    seed_shares = chance.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    photo_shares = chance.multinomial(photos, np.full(photos, 1 / photos), size=draws) / photos
    means = ((seed_shares @ values) * photo_shares).sum(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))
