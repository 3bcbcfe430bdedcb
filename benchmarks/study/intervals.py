"""How sure a mean over seeds and photos is.

python -m benchmarks.study.intervals    # how often such intervals hold the truth, simulated
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def side(self) -> int:
        """1 if the whole interval is above 0, -1 if it is below, 0 if it holds 0."""
        return int(self.low > 0) - int(self.high < 0)


def interval(values: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Return the mean of ``values`` and its confidence interval for other seeds and other photos.

    Seeds and photos are crossed random effects: the variance of the mean is ``(M_seeds + M_photos - M_rest) / (S P)``
    of their mean squares, of which no part counts less than nothing, and Student's t has the degrees of freedom of
    Satterthwaite (1946), "An approximate distribution of estimates of variance components". A bootstrap of seeds and
    photos, which stood here first, is too narrow for so few of them.
    Give differences of pairs (same seed, same photo) to compare two arms.

    Args:
        values: one number for each seed and photo, ``(S, P)``; with one seed or one photo it is the plain t interval
            over the others, with one of both nothing is known.
        confidence: how often such an interval should hold the truth.
    """
    seeds, photos = values.shape
    mean = values.mean()
    of_seeds, of_photos = values.mean(1) - mean, values.mean(0) - mean
    rest = values - mean - of_seeds[:, None] - of_photos
    squares = [photos * np.square(of_seeds).sum(), seeds * np.square(of_photos).sum(), np.square(rest).sum()]
    free = [seeds - 1, photos - 1, (seeds - 1) * (photos - 1)]
    means = [square / max(1, number) for square, number in zip(squares, free)]
    variance = max(means[0] + means[1] - means[2], *means)
    uncertain = sum(square**2 / number for square, number in zip(means, free) if number)
    if not variance:
        half = 0.0 if values.size > 1 else np.inf
    else:
        degrees = max(1.0, variance**2 / uncertain)
        half = stats.t.ppf((1 + confidence) / 2, degrees) * np.sqrt(variance / values.size)
    return Interval(float(mean), float(mean - half), float(mean + half))


def coverage(seeds: int, photos: int, spreads: tuple[float, float, float], tables: int = 2000) -> float:
    """Return in what share of random tables around 0 the interval holds 0.

    Args:
        seeds: rows of a table.
        photos: columns.
        spreads: standard deviations that all of a seed, all of a photo, and each number have in common.
        tables: how many are drawn.
    """
    chance, hits = np.random.default_rng(0), 0
    for _ in range(tables):
        shapes = (seeds, 1), (1, photos), (seeds, photos)
        values = sum(spread * chance.normal(size=shape) for spread, shape in zip(spreads, shapes))
        hits += interval(np.asarray(values)).side == 0
    return hits / tables


def main() -> None:
    """Print the coverage of three seeds and four photos for several origins of the spread."""
    print("| seeds, photos, rest | coverage of 95 % intervals |\n|---|---|")
    for spreads in ((1, 1, 1), (0, 1, 1), (0, 1, 0.3), (1, 0, 0.3), (0, 0, 1)):
        print(f"| {', '.join(map(str, spreads))} | {coverage(3, 4, spreads):.1%} |")


if __name__ == "__main__":
    main()
