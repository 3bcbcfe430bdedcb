"""The other images of the batch."""

from __future__ import annotations

from clp_basicsr import arguments
from clp_basicsr.negatives.base import Negative, Source, Step


class OtherImages(Source):
    """Every other image of the batch is a negative; the own one never is.

    Costs no pass through the network: the features are there already. Meant for ``infonce``; for a
    triplet, being unlike another photo teaches nothing. With CSD's ``of="lr"`` it is their LR images.
    """

    name = "batch"
    needs_training = True
    takes_other_images = True

    def __init__(self, of: str = "gt", count: int | None = None) -> None:
        """Choose the images.

        Args:
            of: "gt", or "lr" for the others' upsampled LR images.
            count: at most how many; None for all others.

        Raises:
            TypeError: if ``count`` is no whole number.
            ValueError: if a value is not allowed.
        """
        self.of = arguments.choice("of", of, ["gt", "lr"])
        self.count = None if count is None else arguments.count("count", count)

    def __call__(self, step: Step) -> list[Negative]:
        """Return the batch, rolled by 1, 2, …; nothing for a batch of one."""
        images = step.target if self.of == "gt" else step.upsampled_lr
        others = len(images) - 1
        shifts = range(1, 1 + (others if self.count is None else min(others, self.count)))
        return [Negative(images, shift) for shift in shifts]
