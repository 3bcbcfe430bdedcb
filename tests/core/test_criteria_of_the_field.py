"""Ratio, InfoNCE, directional push, soft and swapped triplets: against plain loops, torch and their papers' form."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clp_basicsr.criteria import Criterion
from clp_basicsr.criteria.directional import Directional
from clp_basicsr.criteria.infonce import InfoNCE
from clp_basicsr.criteria.ratio import BatchRatio, Ratio
from clp_basicsr.criteria.triplet import FixedMarginTriplet, RelativeTriplet
from clp_basicsr.distances import DISTANCES

from .oracles import loop_distances, loop_floor

WEIGHT = 0.7
ALL: dict[str, Criterion] = {
    "relative": RelativeTriplet(DISTANCES["l2"]),
    "swap": FixedMarginTriplet(DISTANCES["l2"], 1.0, swap=True),
    "soft": FixedMarginTriplet(DISTANCES["l2"], 1.0, soft=True),
    "nonzero": FixedMarginTriplet(DISTANCES["l2"], 0.1, reduction="nonzero"),
    "ratio": Ratio(DISTANCES["l1"]),
    "batch_ratio": BatchRatio(DISTANCES["l1"]),
    "infonce": InfoNCE(),
    "infonce uncapped": InfoNCE(1.0, capped=False),
    "directional": Directional(),
}
ZERO_AT_GT = ("relative", "ratio", "batch_ratio", "infonce", "directional")


def features(count: int = 1, size: tuple[int, ...] = (2, 5, 4, 6), seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Anchor, positive and ``count`` negatives per image, in float64."""
    generator = torch.Generator().manual_seed(seed)
    positive, noise = (torch.randn(size, dtype=torch.float64, generator=generator) for _ in range(2))
    negatives = torch.randn((count, *size), dtype=torch.float64, generator=generator)
    return (0.6 * positive + 0.4 * negatives[0] + 0.2 * noise).requires_grad_(), positive, negatives


def value(criterion: Criterion, count: int = 1) -> float:
    return criterion(*features(count), weight=WEIGHT).loss.item()


def mean_absolute(first: Tensor, second: Tensor) -> float:
    return float(np.abs(first.detach().numpy() - second.detach().numpy()).mean())


@pytest.mark.parametrize("over_negatives", ["mean", "sum"])
@pytest.mark.parametrize("count", [1, 3])
def test_batch_ratio_is_the_papers_line(over_negatives: str, count: int) -> None:
    anchor, positive, negatives = features(count)
    denominator = sum(mean_absolute(anchor, negative) for negative in negatives)
    denominator /= count if over_negatives == "mean" else 1
    expected = WEIGHT * mean_absolute(anchor, positive) / (denominator + 1e-7)
    criterion = BatchRatio(DISTANCES["l1"], over_negatives)
    assert criterion(anchor, positive, negatives, WEIGHT).loss.item() == pytest.approx(expected, rel=1e-10)
    assert criterion.normaliser([1, 2]) == 1


def test_batch_ratio_weights_the_negatives_as_c2pnet_does() -> None:
    anchor, positive, negatives = features(3)
    shares = [6 / 8, 1.25 / 8, 0.75 / 8]
    denominator = sum(share * mean_absolute(anchor, negative) for share, negative in zip(shares, negatives))
    expected = WEIGHT * mean_absolute(anchor, positive) / (denominator + 1e-7)
    criterion = BatchRatio(DISTANCES["l1"], (6, 1.25, 0.75))
    assert criterion(anchor, positive, negatives, WEIGHT).loss.item() == pytest.approx(expected, rel=1e-10)
    with pytest.raises(ValueError, match="one weight for each of the 2 negatives, but got 3"):
        criterion(anchor, positive, negatives[:2], WEIGHT)


def root_mean_square(first: Tensor, second: Tensor) -> float:
    return float(np.sqrt(np.square((first - second).detach().numpy()).mean((-2, -1))).mean())


def mean_cosine_distance(first: Tensor, second: Tensor) -> float:
    return float((1 - F.cosine_similarity(first.detach(), second, dim=-3)).mean())


@pytest.mark.parametrize(
    ("distance", "mean"), [("l1", mean_absolute), ("l2", root_mean_square), ("cosine", mean_cosine_distance)]
)
def test_batch_ratio_is_one_of_means_with_every_distance(distance: str, mean: Callable[..., float]) -> None:
    anchor, positive, negatives = features(size=(2, 5, 40, 60))
    expected = WEIGHT * mean(anchor, positive) / (mean(anchor, negatives[0]) + 1e-7)
    got = BatchRatio(DISTANCES[distance])(anchor, positive, negatives, WEIGHT)
    assert got.loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_ratio_is_per_image_with_a_floor(distance: str) -> None:
    anchor, positive, negatives = (each.detach().numpy() for each in features(2))
    ratios = []
    for image in range(anchor.shape[0]):
        to_positive = np.mean(loop_distances(anchor[image], positive[image], distance))
        denominators = []
        for negative in negatives:
            gap = np.mean(loop_distances(positive[image], negative[image], distance))
            floor = loop_floor([gap], positive[image], distance)
            away = np.mean(loop_distances(anchor[image], negative[image], distance))
            denominators.append(away + 0.1 * (gap + floor))
        ratios.append(to_positive / np.mean(denominators))
    assert value(Ratio(DISTANCES[distance]), 2) == pytest.approx(WEIGHT * np.mean(ratios), rel=1e-10)


def similarity(first: Tensor, second: Tensor) -> Tensor:
    return F.cosine_similarity(first, second, dim=1).mean((1, 2))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_uncapped_infonce_is_cross_entropy(temperature: float) -> None:
    anchor, positive, negatives = features(3)
    logits = torch.stack([similarity(anchor, each) for each in (positive, *negatives)], 1) / temperature
    expected = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
    got = InfoNCE(temperature, capped=False)(anchor, positive, negatives, 1.0).loss
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


def test_capped_infonce_by_hand() -> None:
    anchor, positive, negatives = features(3)
    values = []
    for image in range(2):
        one = [each[image : image + 1] for each in (anchor, positive)]
        near = float(similarity(*one))
        pairs = [(float(similarity(one[0], n[image : image + 1])), float(similarity(one[1], n[image : image + 1])))
                 for n in negatives]  # fmt: skip
        away = sum(math.exp(max(similar, cap) / 0.5) for similar, cap in pairs)
        at_gt = math.log1p(sum(math.exp((cap - 1) / 0.5) for _, cap in pairs))
        values.append(-math.log(math.exp(near / 0.5) / (math.exp(near / 0.5) + away)) - at_gt)
    assert value(InfoNCE(0.5), 3) == pytest.approx(WEIGHT * np.mean(values), rel=1e-5)


def test_directional_push_is_the_missing_part_of_the_way() -> None:
    anchor, positive, negatives = (each.detach().numpy() for each in features())
    values = []
    for image in range(2):
        gaps = [loop_distances(positive[image], negatives[0, image], "l2")]
        floor = loop_floor(gaps, positive[image], "l2")
        for channel in range(5):
            a, p, n = (each[channel] for each in (anchor[image], positive[image], negatives[0, image]))
            gap = np.linalg.norm(p - n)
            share = ((a - n) * (p - n)).sum() / gap**2
            values.append((np.linalg.norm(a - p) + 0.5 * max(1 - share, 0) * gap) / (gap + floor))
    assert value(Directional(0.5)) == pytest.approx(WEIGHT * np.mean(values), rel=1e-10)


def test_directional_push_ignores_movement_across() -> None:
    _, positive, negatives = features()
    across = torch.randn_like(positive)
    detail = positive - negatives[0]
    along = (across * detail).sum((2, 3), keepdim=True) / detail.square().sum((2, 3), keepdim=True)
    across = across - along * detail
    push = [Directional()(negatives[0] + shift, positive, negatives, 1.0).push.item() for shift in (0.0, across)]
    assert push[0] == pytest.approx(push[1], rel=1e-10)
    anywhere = RelativeTriplet(DISTANCES["l2"])(negatives[0] + across, positive, negatives, 1.0).push.item()
    assert anywhere < 0.5 * push[0]


def test_directional_push_fades_with_the_gap() -> None:
    anchor, positive, _ = features()
    pushes = []
    for gap in (1e-2, 1e-4, 0.0):
        negatives = torch.lerp(positive, anchor.detach(), gap)[None]  # the worst direction there is
        pushes.append(Directional()(anchor, positive, negatives, 1.0).push.item())
    assert pushes[0] > 50 * pushes[1] > 0
    assert pushes[2] == 0


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "nonzero"])
def test_triplet_is_pytorch_metric_learnings(soft: bool, swap: bool, reduction: str) -> None:
    distances = pytest.importorskip("pytorch_metric_learning.distances", reason="pip install pytorch-metric-learning")
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.reducers import AvgNonZeroReducer, MeanReducer

    anchor, positive, negatives = features(seed=3)
    embeddings = [each.flatten(2).flatten(0, 1) for each in (anchor, positive, negatives[0])]
    triplets = len(embeddings[0])
    theirs = TripletMarginLoss(
        margin=1.3,
        swap=swap,
        smooth_loss=soft,
        distance=distances.LpDistance(normalize_embeddings=False),
        reducer=AvgNonZeroReducer() if reduction == "nonzero" else MeanReducer(),
    )
    index = torch.arange(triplets)
    expected = theirs(
        torch.cat(embeddings), torch.arange(3 * triplets), (index, index + triplets, index + 2 * triplets)
    )
    ours = FixedMarginTriplet(DISTANCES["l2"], 1.3, swap, soft, reduction)(anchor, positive, negatives, 1.0)
    torch.testing.assert_close(ours.loss, expected, rtol=1e-5, atol=2e-6)  # they add no 1e-6 to differences
    assert 0 < ours.active.item() < 1


@pytest.mark.parametrize("name", ["relative", "swap", "soft", "nonzero", "ratio", "directional"])
def test_the_same_negative_twice_changes_nothing(name: str) -> None:
    anchor, positive, negatives = features()
    once = ALL[name](anchor, positive, negatives, WEIGHT).loss
    twice = ALL[name](anchor, positive, negatives.expand(4, -1, -1, -1, -1), WEIGHT).loss
    torch.testing.assert_close(twice, once, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_gradient_is_the_numerical_one(name: str) -> None:
    anchor, positive, negatives = features(2, size=(2, 3, 2, 3))
    assert torch.autograd.gradcheck(lambda x: ALL[name](x, positive, negatives, WEIGHT).loss, (anchor,))


@pytest.mark.parametrize("name", ZERO_AT_GT)
def test_zero_at_gt(name: str) -> None:
    _, positive, negatives = features(2)
    assert ALL[name](positive, positive, negatives, WEIGHT).loss.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("equal", ["anchor and positive", "anchor and negative", "positive and negative", "all"])
@pytest.mark.parametrize("name", ALL)
def test_finite_where_features_are_equal(name: str, equal: str) -> None:
    anchor, positive, negatives = features()
    start, goal, away = {
        "anchor and positive": (positive, positive, negatives),
        "anchor and negative": (negatives[0], positive, negatives),
        "positive and negative": (anchor.detach(), positive, positive[None]),
        "all": (torch.zeros_like(positive), torch.zeros_like(positive), torch.zeros_like(negatives)),
    }[equal]
    start = start.clone().requires_grad_()
    terms = ALL[name](start, goal, away, WEIGHT)
    terms.loss.backward()
    assert start.grad is not None
    assert all(bool(each.isfinite().all()) for each in (start.grad, terms.loss, terms.numbers))


def test_floor_tames_the_ratio_near_the_negative() -> None:
    _, positive, negatives = features()

    def steepness(criterion: Criterion) -> float:
        start = (negatives[0] + 1e-4 * (positive - negatives[0])).requires_grad_()
        return torch.autograd.grad(criterion(start, positive, negatives, 1.0).loss, start)[0].norm().item()

    assert steepness(Ratio(DISTANCES["l2"])) < 0.01 * steepness(BatchRatio(DISTANCES["l2"]))
