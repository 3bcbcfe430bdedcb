"""Criteria, one layer of made-up features at a time, against torch and against plain loops."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clp_basicsr.criteria import CRITERIA, Criterion
from clp_basicsr.criteria.directional import Directional
from clp_basicsr.criteria.infonce import InfoNCE
from clp_basicsr.criteria.ratio import BatchRatio, Ratio
from clp_basicsr.criteria.triplet import FixedMarginTriplet, RelativeTriplet
from clp_basicsr.diagnostics import layer_numbers, layer_sums
from clp_basicsr.distances import DISTANCES

from .oracles import loop_distances, loop_floor, loop_relative

ALL = ("l2", "l1", "cosine")
Build = Callable[[str], Criterion]
BOTH: dict[str, Build] = {
    "relative": lambda distance: RelativeTriplet(DISTANCES[distance], 0.3),
    "fixed": lambda distance: FixedMarginTriplet(DISTANCES[distance], 4.0),
}


def triple(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Anchor, positive, and one negative per image; the anchor lies between the two others."""
    generator = torch.Generator().manual_seed(seed)
    positive, negative, noise = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(3))
    return (0.6 * positive + 0.4 * negative + 0.2 * noise).requires_grad_(), positive, negative[None]


def numpy(*features: Tensor) -> list[np.ndarray]:
    return [each.detach().numpy() for each in features]


def test_the_table_names_the_criteria() -> None:
    assert list(CRITERIA) == ["triplet", "ratio", "batch_ratio", "infonce", "directional"]


@pytest.mark.parametrize("push_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("distance", ALL)
def test_relative_equals_plain_loops(distance: str, push_weight: float) -> None:
    anchor, positive, negatives = triple(2, 5, 4, 6)
    terms = RelativeTriplet(DISTANCES[distance], push_weight)(anchor, positive, negatives, weight=0.7)
    value, pull, push = loop_relative(numpy(anchor, positive, negatives[0]), distance, push_weight)
    assert terms.loss.item() == pytest.approx(0.7 * value, rel=1e-10)
    assert terms.pull.item() == pytest.approx(pull, rel=1e-10)
    assert terms.push.item() == pytest.approx(push, rel=1e-10)
    assert push > 0.05


@pytest.mark.parametrize("share", [0.0, 1e-3, 0.05, 0.15, 0.5])
@pytest.mark.parametrize("distance", ALL)
def test_a_small_gap_counts_as_a_tenth_of_the_features(distance: str, share: float) -> None:
    """Image by image, on both sides of that tenth; the second image has an ordinary gap."""
    anchor, positive, negatives = triple(2, 5, 4, 6)
    negatives = torch.cat((torch.lerp(positive[:1], negatives[0, :1], share)[None], negatives[:, 1:]), 1)
    terms = RelativeTriplet(DISTANCES[distance], 0.3)(anchor, positive, negatives, weight=0.7)
    value, pull, push = loop_relative(numpy(anchor, positive, negatives[0]), distance, 0.3)
    assert terms.loss.item() == pytest.approx(0.7 * value, rel=1e-6)
    assert terms.pull.item() == pytest.approx(pull, rel=1e-6)
    assert terms.push.item() == pytest.approx(push, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("distance", ALL)
def test_push_weight_1_is_the_hinge_with_swapped_negative(distance: str) -> None:
    anchor, positive, negatives = triple(1, 5, 4, 6)
    a, p, n = (each[0] for each in numpy(anchor, positive, negatives[0]))
    to_positive, to_negative, gap = (np.array(loop_distances(*pair, distance)) for pair in ((a, p), (a, n), (p, n)))
    hinge = np.maximum(to_positive - np.minimum(to_negative, gap) + gap, 0)
    floor = loop_floor(gap, p, distance)
    terms = RelativeTriplet(DISTANCES[distance], 1.0)(anchor, positive, negatives, weight=1.0)
    assert terms.loss.item() == pytest.approx((hinge / (gap + floor)).mean(), rel=1e-10)


@pytest.mark.parametrize("distance", ["l2", "l1"])
@pytest.mark.parametrize("seed", range(5))
def test_relative_is_between_the_pull_and_twice_the_pull(distance: str, seed: int) -> None:
    terms = RelativeTriplet(DISTANCES[distance], 1.0)(*triple(2, 5, 4, 6, seed=seed), weight=1.0)
    assert terms.pull.item() < terms.loss.item() <= 2 * terms.pull.item()


@pytest.mark.parametrize("distance", ALL)
def test_relative_is_0_at_gt_and_nearly_2_at_the_negative(distance: str) -> None:
    _, positive, negatives = triple(2, 5, 4, 6)
    criterion = RelativeTriplet(DISTANCES[distance], 1.0)
    assert criterion(positive, positive, negatives, weight=1.0).loss.item() == 0
    assert 1.8 < criterion(negatives[0], positive, negatives, weight=1.0).loss.item() < 2


def test_floor_is_taken_per_image() -> None:
    """An image of large features must not weigh on the floor of its neighbour in the batch."""
    scales = torch.tensor([1.0, 100.0], dtype=torch.float64).view(2, 1, 1, 1)
    anchor, positive, negatives = (each * scales for each in triple(2, 5, 4, 6))
    criterion = RelativeTriplet(DISTANCES["l2"], 1.0)
    single = [criterion(anchor[i : i + 1], positive[i : i + 1], negatives[:, i : i + 1], 1.0).loss for i in (0, 1)]
    together = criterion(anchor, positive, negatives, weight=1.0).loss
    torch.testing.assert_close(together, torch.stack(single).mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("distance", "order", "margin"), [("l2", 2.0, 2.5), ("l1", 1.0, 4.0)])
def test_fixed_margin_is_torchs_triplet_margin_loss(distance: str, order: float, margin: float, swap: bool) -> None:
    anchor, positive, negatives = triple(2, 5, 4, 6)
    if swap:  # beyond GT, where the negative is nearer to it than to SR
        anchor = 3.5 * positive - 2.5 * anchor
    terms = FixedMarginTriplet(DISTANCES[distance], margin, swap=swap)(anchor, positive, negatives, weight=0.7)
    flat = [(0.7 * each).flatten(2) for each in (anchor, positive, negatives[0])]
    expected = nn.TripletMarginLoss(margin=margin, p=order, swap=swap)(*flat)
    assert expected > 0
    torch.testing.assert_close(terms.loss, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(terms.loss, anchor)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, anchor)[0], rtol=1e-10, atol=1e-14)


def test_fixed_margin_with_cosine_weights_the_distance() -> None:
    anchor, positive, negatives = triple(1, 5, 4, 6)
    a, p, n = (each[0] for each in numpy(anchor, positive, negatives[0]))
    differences = np.subtract(loop_distances(a, p, "cosine"), loop_distances(a, n, "cosine"))
    terms = FixedMarginTriplet(DISTANCES["cosine"], 0.2)(anchor, positive, negatives, weight=0.7)
    assert terms.loss.item() == pytest.approx(np.maximum(0.7 * differences + 0.2, 0).mean(), rel=1e-10)


def test_active_is_the_share_of_open_hinges() -> None:
    anchor, positive, negatives = triple(2, 50, 4, 6)
    flat = [each.flatten(2) for each in (anchor, positive, negatives[0])]
    margin = 2.5
    hinges = nn.TripletMarginLoss(margin=margin, reduction="none")(*flat)
    terms = FixedMarginTriplet(DISTANCES["l2"], margin)(anchor, positive, negatives, weight=1.0)
    share = (hinges > 0).double().mean().item()
    assert 0 < share < 1
    assert terms.active.item() == pytest.approx(share)
    assert terms.total == 100


@pytest.mark.parametrize("name", ["fixed", "batch_ratio"])
def test_pull_and_push_are_shares_of_the_gap_whatever_the_features_are_multiplied_by(name: str) -> None:
    """Both criteria measure multiples of the features: of the layer's weight, and of what makes a mean."""
    anchor, positive, negatives = triple(2, 5, 4, 6)
    terms = EVERY[name](anchor, positive, negatives, 0.05)
    _, pull, push = loop_relative(numpy(anchor, positive, negatives[0]), "l2", 1.0)
    assert terms.pull.item() == pytest.approx(pull, rel=1e-4)
    assert terms.push.item() == pytest.approx(push, rel=1e-4)


@pytest.mark.parametrize("margin", [2.5, 1e-3])
def test_soft_hinges_are_active_as_hard_ones_are(margin: float) -> None:
    anchor, positive, negatives = triple(2, 50, 4, 6)
    for each in (anchor, positive + 1e-3 * (anchor - positive)):
        hard, soft = (FixedMarginTriplet(DISTANCES["l2"], margin, soft=soft) for soft in (False, True))
        active = [criterion(each, positive, negatives, weight=1.0).active.item() for criterion in (hard, soft)]
        assert active[0] == active[1] < 1


@pytest.mark.parametrize("distance", ALL)
@pytest.mark.parametrize("margin", BOTH)
def test_gradient_is_the_numerical_one(distance: str, margin: str) -> None:
    anchor, positive, negatives = triple(2, 3, 2, 3)
    criterion = BOTH[margin](distance)
    assert torch.autograd.gradcheck(lambda x: criterion(x, positive, negatives, 0.7).loss, (anchor,))


@pytest.mark.parametrize("margin", BOTH)
def test_only_the_loss_carries_gradient(margin: str) -> None:
    terms = BOTH[margin]("l2")(*triple(2, 3, 2, 3), weight=1.0)
    assert terms.loss.requires_grad
    assert not any(each.requires_grad for each in (terms.pull, terms.push, terms.active))


EVERY: dict[str, Criterion] = {
    **{f"relative {distance}": RelativeTriplet(DISTANCES[distance]) for distance in ALL},
    "fixed": FixedMarginTriplet(DISTANCES["l2"], 4.0, swap=True),
    "ratio": Ratio(DISTANCES["l1"]),
    "batch_ratio": BatchRatio(DISTANCES["l2"]),
    "infonce": InfoNCE(),
    "directional": Directional(),
}


@pytest.mark.parametrize("name", [name for name in EVERY if name != "fixed"])  # that one's hinges may be open at GT
def test_terms_at_gt_are_not_active(name: str) -> None:
    anchor, positive, negatives = (each.detach() for each in triple(2, 5, 4, 6))
    terms = EVERY[name](torch.stack((positive[0], anchor[1])), positive, negatives, 1.0)
    assert terms.active.item() == 0.5


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EVERY)
def test_half_precision_features_are_measured_in_float32(name: str, dtype: torch.dtype, count: int) -> None:
    """As if they had been converted before; SR is near GT, where a rounded difference would show."""
    _, positive, negative = (each.detach() for each in triple(2, 5, 12, 14, seed=5))
    noise = torch.randn(positive.shape, generator=torch.Generator().manual_seed(6))
    negatives = torch.cat((negative, negative.roll(1, -1)))[:count].to(dtype)
    anchor, positive = (positive + 0.1 * noise).to(dtype).requires_grad_(), positive.to(dtype)
    exact = anchor.detach().float().requires_grad_()
    expected = EVERY[name](exact, positive.float(), negatives.float(), 0.7)
    terms = EVERY[name](anchor, positive, negatives, 0.7)
    assert {each.dtype for each in terms[:2]} == {torch.float32}
    torch.testing.assert_close(terms[:2], expected[:2], rtol=1e-5, atol=1e-7)
    # At a size of which float16 has digits: see float16_range.py.
    (gradient,), (wanted,) = (
        torch.autograd.grad(1e4 * loss, at) for loss, at in ((terms[0], anchor), (expected[0], exact))
    )
    assert gradient.dtype == dtype
    rounding = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.float(), wanted, rtol=rounding, atol=rounding * float(wanted.abs().max()))


@pytest.mark.parametrize("name", EVERY)
def test_diagnostics_of_half_precision_features(name: str) -> None:
    anchor, positive, negatives = (each.detach().bfloat16() for each in triple(2, 5, 12, 14))
    numbers = [
        layer_numbers(layer_sums(*features, EVERY[name](*features, 1.0)))
        for features in ((anchor, positive, negatives), (anchor.float(), positive.float(), negatives.float()))
    ]
    torch.testing.assert_close(*numbers, rtol=1e-4, atol=1e-6)
