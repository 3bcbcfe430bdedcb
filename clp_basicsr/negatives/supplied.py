"""Negatives from files, brought by the data set beside each pair."""

from __future__ import annotations

import torch
from torch import Tensor

from clp_basicsr.images import check_batch, check_tensor
from clp_basicsr.negatives.base import Negative, Source, Step


class Supplied(Source):
    """The images the model holds in ``neg``: outputs of another method, for instance.

    In BasicSR they come from `PairedNegativeDataset` (``dataroot_neg``), cropped and flipped as GT is.
    """

    name = "files"
    needs_training = True

    def __call__(self, step: Step) -> list[Negative]:
        """Return one negative for each folder of the data set.

        Raises:
            TypeError: if they are no dense floating point tensor.
            ValueError: if the model has none, or they are of another size than GT.
        """
        supplied: Tensor | None = getattr(step.find_model(), "neg", None)
        if supplied is None:
            raise ValueError(
                "The negative `files` needs images that the data set brings, but the model has none in `neg`. "
                "In BasicSR: `type: PairedNegativeDataset` and `dataroot_neg: FOLDER` under `datasets: train`."
            )
        check_tensor("neg", supplied)
        batches = supplied.unbind(1) if supplied.dim() == 5 else (supplied,)
        for images in batches:
            check_batch("neg", images)
        prepared = [step.prepare(images.to(step.target)) for images in batches]
        for images in prepared:
            if images.shape != step.target.shape:
                raise ValueError(
                    f"The negative `files` must have the shape of `target`, {tuple(step.target.shape)}, but got "
                    f"{tuple(images.shape)}."
                )
        return [Negative(torch.clamp(images, 0, 1)) for images in prepared]
