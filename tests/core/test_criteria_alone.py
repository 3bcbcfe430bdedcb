"""Each criterion minimised alone, from SR 40 % of the way from the negative to GT: where does it end?

What a criterion does when nothing else holds it: it may die on the way, stop at GT, or run past it.
"""

import pytest
import torch
from torch import Tensor

from clp_basicsr.criteria import Criterion
from clp_basicsr.criteria.directional import Directional
from clp_basicsr.criteria.infonce import InfoNCE
from clp_basicsr.criteria.ratio import Ratio
from clp_basicsr.criteria.triplet import FixedMarginTriplet, RelativeTriplet
from clp_basicsr.distances import DISTANCES

L2 = DISTANCES["l2"]


def minimised(criterion: Criterion) -> tuple[float, float]:
    """Return ``A / P`` at the end, and the overshoot beyond GT along the way, in shares of the way."""
    generator = torch.Generator().manual_seed(0)
    positive, detail, noise = (torch.randn(1, 16, 6, 6, generator=generator) for _ in range(3))
    negative = positive - 0.5 * detail  # alike, as the features of GT and of the upsampled LR are
    sr = (negative + 0.4 * (positive - negative) + 0.05 * noise).requires_grad_()
    optimizer = torch.optim.Adam([sr], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
    for _ in range(800):
        optimizer.zero_grad()
        criterion(sr, positive, negative[None], 1.0).loss.backward()
        optimizer.step()
        schedule.step()
    return _distance(sr.detach(), positive) / _distance(positive, negative), _overshoot(sr.detach(), positive, negative)


def _distance(first: Tensor, second: Tensor) -> float:
    return (first - second).norm().item()


def _overshoot(sr: Tensor, positive: Tensor, negative: Tensor) -> float:
    way = positive - negative
    return (((sr - positive) * way).sum() / way.square().sum()).item()


@pytest.mark.parametrize(
    "criterion",
    [RelativeTriplet(L2), RelativeTriplet(L2, 0.3), Directional(), Ratio(L2), Ratio(DISTANCES["l1"])],
    ids=["relative", "relative 0.3", "directional", "ratio l2", "ratio l1"],
)
def test_ends_at_gt(criterion: Criterion) -> None:
    end, overshoot = minimised(criterion)
    assert end < 0.01
    assert abs(overshoot) < 0.01


def test_capped_infonce_ends_near_gts_direction() -> None:
    """Cosines say nothing of lengths: what is held is the direction."""
    end, overshoot = minimised(InfoNCE())
    assert end < 0.3
    assert abs(overshoot) < 0.05


def test_uncapped_infonce_runs_away() -> None:
    end, overshoot = minimised(InfoNCE(0.07, capped=False))
    assert end > 0.5
    assert overshoot > 0.3


def test_a_small_fixed_margin_dies_on_the_way() -> None:
    end, overshoot = minimised(FixedMarginTriplet(L2, 0.3))
    assert end > 0.3
    assert overshoot < -0.1


def test_a_large_fixed_margin_overshoots() -> None:
    assert minimised(FixedMarginTriplet(L2, 20.0))[1] > 0.2


def test_swap_with_a_large_margin_does_not() -> None:
    end, overshoot = minimised(FixedMarginTriplet(L2, 20.0, swap=True))
    assert end < 0.01
    assert abs(overshoot) < 0.01
