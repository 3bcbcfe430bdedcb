"""LR, degraded once more: further away from GT than the network's own input is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from clp_basicsr import arguments
from clp_basicsr.images import resize_to
from clp_basicsr.negatives.base import MOST, Negative, Source, Step
from clp_basicsr.negatives.draws import Draws, beside


class DegradedLR(Source):
    """``count`` copies of LR, each made smaller and back, and noisy, then brought to the size of GT."""

    name = "degraded"
    varies = True

    def __init__(
        self,
        count: int = 1,
        scale: Sequence[float] = (0.5, 1.0),
        noise: Sequence[float] = (0.0, 0.04),
        seed: int = 0,
    ) -> None:
        """Set the ranges.

        Args:
            count: how many negatives per image, up to `MOST`.
            scale: smallest and largest factor by which the LR batch is made smaller.
            noise: smallest and largest standard deviation of Gaussian noise, in units of the [0, 1] range.
            seed: of the random choices.

        Raises:
            TypeError: if a value is of the wrong type.
            ValueError: if a range is empty or a scale is above 1.
        """
        self.count = arguments.count("count", count, most=MOST)
        self.scale = arguments.interval("scale", scale)
        if self.scale[1] > 1 or self.scale[0] <= 0:
            raise ValueError(f"Argument `scale` must be above 0 and up to 1, but got {list(scale)}.")
        self.noise = arguments.interval("noise", noise)
        self.draws = Draws(seed)

    def __call__(self, step: Step) -> list[Negative]:
        """Return the degraded copies at the size of GT."""
        random = self.draws.at(step.find_iteration())
        return [Negative(self._degraded(step, random)) for _ in range(self.count)]

    def _degraded(self, step: Step, random: np.random.Generator) -> Tensor:
        height, width = step.lr.shape[-2:]
        scale = random.uniform(*self.scale)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        images = F.interpolate(step.lr, size=size, mode="area")
        noise = random.standard_normal(images.shape, dtype=np.float32) * random.uniform(*self.noise)
        images = images + beside(images, np.asarray(noise))
        return resize_to(images, (step.target.shape[-2], step.target.shape[-1]))
