"""What a source of negatives may draw on, and what it gives."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

MOST = 100
"""Negatives of one source: each is an image in memory and a pass through the network."""


@dataclass(frozen=True)
class Step:
    """One call of the loss. No image may be changed in place."""

    target: Tensor
    """GT ``(N, 3, H, W)``, values in [0, 1]."""
    lr: Tensor
    """The LR batch ``(N, 3, h, w)``, values in [0, 1]."""
    upsampled_lr: Tensor
    """The LR batch at the size of GT."""
    given_lr: Tensor
    """The LR batch as the model has it: any value range, 1 or 3 channels, images or clips."""
    prepare: Callable[[Tensor], Tensor]
    """Turns images as the model has them into RGB in [0, 1]."""
    find_model: Callable[[], Any | None]
    """Returns the host's model that the loss is bound to or held by; None outside a host."""
    find_iteration: Callable[[], int]
    """Returns the iteration of the training, from 1 on."""


class Negative(NamedTuple):
    """One negative for each image of the batch."""

    images: Tensor
    """``(N, 3, H, W)``. Images that stand in several negatives go through the network once."""
    shift: int = 0
    """How far the batch is rolled: image i has ``images[i - shift]`` as its negative."""


class Source(ABC):
    """Makes negatives; called under ``no_grad`` at every call of the loss."""

    name: str
    """Under which it was asked for; `clp_basicsr.negatives.SOURCES` has two for one class."""
    settings: Mapping[str, Any] = {}
    """All that can be said about it, as it was said or by default."""
    varies = False
    """Whether it gives something else in another iteration, of the same images."""
    needs_training = False
    """Whether it takes what a single image does not have: a model, a data set, a batch."""
    takes_other_images = False
    """Whether the negatives of an image are other images of its batch."""
    resembles_sr = False
    """Whether SR equals its negatives where nothing is wrong."""

    @abstractmethod
    def __call__(self, step: Step) -> list[Negative]:
        """Return any number of negatives, the same number for every image."""

    def for_rehearsal(self) -> Self:
        """Return a copy that gives its negatives in any iteration; what it draws leaves this one as it is."""
        return copy.deepcopy(self)

    def __repr__(self) -> str:
        """Show what was asked for; the same settings look the same however they were written."""
        said = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.name}({said})" if said else self.name
