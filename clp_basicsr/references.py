"""GT and the negatives on their way through the network: each image once, whatever stands for it how often."""

from __future__ import annotations

import torch
from torch import Tensor

from clp_basicsr.negatives import Negative


class References:
    """Puts GT and all negatives into one batch, and finds them again in the features of that batch."""

    def __init__(self, target: Tensor, negatives: list[Negative]) -> None:
        """Collect the images ``(N, 3, H, W)``, equal objects once."""
        self.negatives = negatives
        self.batches = [target]
        for negative in negatives:
            if self._place(negative.images) is None:
                self.batches.append(negative.images)

    def rows(self, rows: slice) -> References:
        """Return the same of some images of the batch; negatives must not be rolled."""
        own = [batch[rows] for batch in self.batches]
        negatives = [negative._replace(images=own[self._place(negative.images) or 0]) for negative in self.negatives]
        return References(own[0], negatives)

    def images(self) -> Tensor:
        """Return everything as one batch."""
        return torch.cat(self.batches)

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of GT ``(N, C, h, w)`` and of the K negatives ``(K, N, C, h, w)``."""
        parts = features.chunk(len(self.batches))
        chosen = [self._rolled(parts, negative) for negative in self.negatives]
        return parts[0], torch.stack(chosen) if len(chosen) > 1 else chosen[0][None]

    def _rolled(self, parts: tuple[Tensor, ...], negative: Negative) -> Tensor:
        part = parts[self._place(negative.images) or 0]
        return part.roll(negative.shift, 0) if negative.shift else part

    def _place(self, images: Tensor) -> int | None:
        for place, batch in enumerate(self.batches):
            if batch is images:
                return place
        return None
