"""Random numbers of the sources: other ones in every iteration, process and source, the same ones after a resume."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from clp_basicsr import arguments


class Draws:
    """A generator for each iteration."""

    def __init__(self, seed: object) -> None:
        """Check the seed.

        Raises:
            TypeError: if it is no whole number.
            ValueError: if it is negative.
        """
        self.seed = arguments.count("seed", seed, zero_allowed=True)
        self.twin = 0
        """How many sources of the same kind and seed stand before this one."""
        self._iteration: int | None = None
        self._generator = np.random.default_rng(self.seed)

    def at(self, iteration: int) -> np.random.Generator:
        """Return the generator of an iteration; asked again for the same one, it goes on where it was."""
        if iteration != self._iteration:
            rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
            self._generator = np.random.default_rng([self.seed, self.twin, rank, iteration])
            self._iteration = iteration
        return self._generator


def beside(images: Tensor, drawn: NDArray[Any]) -> Tensor:
    """Return what was drawn in the type of ``images`` and on their device; nothing waits for it where that is safe."""
    # MPS may read what it copies later, when it is freed (pytorch issue 139550).
    return torch.from_numpy(drawn).to(images.dtype).to(images.device, non_blocking=images.device.type != "mps")
