"""Whether LR belongs to GT, by value: LR of these tests is GT, area-downsampled."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hosts.records import Call

Batches = list[dict[str, Tensor]]


def check_pairs(calls: list[Call], batches: Batches) -> None:
    """Of all LR images there were, other frames of a clip among them, the one given with a GT is the nearest to it."""
    targets, lrs = (small(images) for images in zip(*((call.target, call.lr) for call in calls)))
    there = torch.cat([lrs, *(small([batch["lq"].flatten(0, -4)]) for batch in batches if "lq" in batch)])
    own = (lrs - targets).abs().mean((1, 2, 3))
    distances = (there[None] - targets[:, None]).abs().mean((2, 3, 4))
    same = (there[None] == lrs[:, None]).flatten(2).all(2)
    assert not same.all(1).any()
    assert own.max() < 0.01
    assert (distances.masked_fill(same, 1).min(1).values > 3 * own).all()


def small(images: list[Tensor]) -> Tensor:
    """Return images ``(N, 3, 8, 8)``, each the means over its areas: the same for GT and its LR, but for rounding."""
    return F.adaptive_avg_pool2d(torch.cat(list(images)), 8)
