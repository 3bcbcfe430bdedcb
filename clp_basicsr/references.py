"""GT and the negatives on their way through the network: each image once, whatever stands for it how often."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from clp_basicsr.negatives import Negative


@dataclass(frozen=True)
class References:
    """Puts GT and all negatives into one batch, and finds them again in the features of that batch."""

    batches: list[Tensor]
    """Images ``(N, 3, H, W)``, GT's first."""
    negatives: list[tuple[int, int]]
    """Of each negative, which of ``batches`` it is, and how far that is rolled."""

    @classmethod
    def of(cls, target: Tensor, negatives: Iterable[Negative]) -> References:
        """Collect the images, the same tensor once."""
        batches, found = [target], []
        for negative in negatives:
            # Not `next` with a default, which torch 2.6 cannot trace.
            places = [index for index, batch in enumerate(batches) if batch is negative.images]
            if not places:
                batches.append(negative.images)
            found.append((places[0] if places else len(batches) - 1, negative.shift))
        return cls(batches, found)

    def rows(self, rows: slice) -> References:
        """Return the same of some images of the batch; negatives must not be rolled."""
        return References([batch[rows] for batch in self.batches], self.negatives)

    def images(self) -> Tensor:
        """Return everything as one batch."""
        return torch.cat(self.batches)

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of GT ``(N, C, h, w)`` and of the K negatives ``(K, N, C, h, w)``."""
        parts = features.view(len(self.batches), -1, *features.shape[1:])
        if self.negatives == [(place, 0) for place in range(1, len(parts))]:
            return parts[0], parts[1:]  # views: copies would be held beside what they are made of, in another layout
        return parts[0], torch.stack([parts[place].roll(shift, 0) for place, shift in self.negatives])
