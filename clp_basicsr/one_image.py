"""The part of a loss that one image can show: no negatives that take a training run or other images."""

from __future__ import annotations

import copy
from typing import NamedTuple

from torch import Tensor

from clp_basicsr.criteria import Criterion
from clp_basicsr.loss import CLPLoss
from clp_basicsr.negatives import SOURCES, Negative


class Alone(NamedTuple):
    """The part of a loss that a single image can be seen with."""

    negatives: list[Negative]
    criterion: Criterion
    left_out: tuple[str, ...]
    """Kinds of negatives that only a training run has."""


def alone(loss: CLPLoss, target: Tensor, lr: Tensor, given_lr: Tensor) -> Alone:
    """Draw what negatives a single image has, from copies of the sources; ``lr`` where the loss has none of these.

    Args:
        loss: whose sources and criterion.
        target: ground truth ``(1, 3, H, W)`` in [0, 1].
        lr: low-quality image ``(1, 3, h, w)`` in [0, 1].
        given_lr: the same as the host has it.
    """
    there = [not source.needs_training for source in loss.sources]
    if loss.criterion.weighs_negatives and not all(there):
        # How many negatives the others would give, and so whose the weights in between are, is not known.
        first, last = there.index(False), len(there) - there[::-1].index(False)
        there[first:last] = [False] * (last - first)
    drawn = [
        loss.draw_negatives(target, lr, given_lr, [copy.deepcopy(source)]) if is_there else []
        for source, is_there in zip(loss.sources, there)
    ]
    negatives = [negative for each in drawn for negative in each]
    left_out = tuple(source.name for source, is_there in zip(loss.sources, there) if not is_there)
    criterion = loss.criterion
    if left_out:
        before = sum(len(each) for each in drawn[: there.index(False)])
        criterion = criterion.without_negatives(before, len(negatives) - before)
    return Alone(negatives or loss.draw_negatives(target, lr, given_lr, [SOURCES["lr"]()]), criterion, left_out)
