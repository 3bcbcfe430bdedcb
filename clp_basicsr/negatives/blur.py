"""GT, blurred by a random Gaussian: what an image without the finest detail looks like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clp_basicsr import arguments
from clp_basicsr.negatives.base import MOST, Negative, Source, Step
from clp_basicsr.negatives.draws import Draws, beside

_WIDEST = 255


class BlurredGT(Source):
    """``count`` blurred copies of GT, each image with a kernel of its own.

    Kernels of 3 to 11 pixels as in PCL-SR (src/data/div2k.py), but sigma from 0.5: its 0.1 leaves one image in nine as
    it is, and a negative equal to GT, whose gap is 0, has up to 40 times the usual gradient.
    """

    name = "blur"
    varies = True

    def __init__(
        self,
        count: int = 1,
        kernel: Sequence[int] = (3, 11),
        sigma: Sequence[float] = (0.5, 2.0),
        seed: int = 0,
    ) -> None:
        """Set the ranges.

        Args:
            count: how many negatives per image, up to `MOST`.
            kernel: smallest and largest odd width in pixels.
            sigma: smallest and largest standard deviation in pixels, > 0.
            seed: of the random choices.

        Raises:
            TypeError: if a value is of the wrong type.
            ValueError: if a range is empty, a width even or too large, or ``sigma`` 0.
        """
        self.count = arguments.count("count", count, most=MOST)
        low, high = arguments.interval("kernel", kernel)
        if low % 2 != 1 or high % 2 != 1 or high > _WIDEST:
            raise ValueError(
                f"Argument `kernel` must be two odd widths in pixels, up to {_WIDEST}, but got {list(kernel)}."
            )
        self.widths = np.arange(int(low), int(high) + 1, 2)
        self.sigma = arguments.interval("sigma", sigma)
        if not self.sigma[0]:
            raise ValueError(f"Argument `sigma` must be two numbers > 0, but got {list(sigma)}.")
        self.draws = Draws(seed)

    def __call__(self, step: Step) -> list[Negative]:
        """Return the blurred copies."""
        random = self.draws.at(step.find_iteration())
        return [Negative(self._blurred(step.target, random)) for _ in range(self.count)]

    def _blurred(self, images: Tensor, random: np.random.Generator) -> Tensor:
        kernels = np.stack([self._kernel(random) for _ in range(len(images))])
        return blurred(images, beside(images, kernels))

    def _kernel(self, random: np.random.Generator) -> np.ndarray:
        """Return a 1-D kernel, zeros around it up to the largest width."""
        width, sigma = random.choice(self.widths), random.uniform(*self.sigma)
        offsets = np.arange(self.widths[-1]) - self.widths[-1] // 2
        kernel = np.where(np.abs(offsets) <= width // 2, np.exp(-0.5 * (offsets / sigma) ** 2), 0.0)
        return np.asarray(kernel / kernel.sum())


def blurred(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image ``(N, C, H, W)`` with its separable kernel ``(N, width)``, edges replicated."""
    batch, channels, height, width = images.shape
    size = kernels.shape[-1]
    weight = kernels.repeat_interleave(channels, 0)
    planes = F.pad(images, [size // 2] * 4, mode="replicate").flatten(0, 1)[None]
    # A host's autocast would round the images to 8 or 11 bits: as large a difference as a slight blur.
    with torch.autocast(images.device.type, enabled=False):
        planes = F.conv2d(planes, weight[:, None, :, None], groups=batch * channels)
        planes = F.conv2d(planes, weight[:, None, None, :], groups=batch * channels)
    return planes.view(batch, channels, height, width)
