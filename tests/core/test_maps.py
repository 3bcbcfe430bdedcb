"""Maps over positions, against plain loops in float64 and against the numbers they are parts of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from clp_basicsr.criteria import CRITERIA, OPTIONS, Criterion, build_criterion
from clp_basicsr.maps import layer_maps, map_value

from .oracles import Array, loop_distances, loop_floor

ALL = ("l2", "l1", "cosine")
EVERY: dict[str, Callable[[], Criterion]] = {
    "relative": lambda: _built("triplet"),
    "relative l1": lambda: _built("triplet", "l1"),
    "relative cosine": lambda: _built("triplet", "cosine"),
    "fixed": lambda: _built("triplet", margin=3.0, swap=True),
    "fixed l1": lambda: _built("triplet", "l1", margin=3.0),
    "ratio": lambda: _built("ratio"),
    "batch_ratio": lambda: _built("batch_ratio", "l1"),
    "infonce": lambda: _built("infonce"),
    "directional": lambda: _built("directional"),
}


def _built(name: str, distance: str = "l2", **options: object) -> Criterion:
    return build_criterion(name, distance, {**OPTIONS, **options})


def features(count: int = 2, negatives: int = 3, channels: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """SR on the way from the first negative to GT, some channels nearer and some further away than GT is."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, channels, 3, 5, dtype=torch.float64, generator=generator)

    positive, negative = draw(count), draw(negatives, count)
    return 0.5 * positive + 0.5 * negative[0] + 0.6 * draw(count), positive, negative


def loop_parts(first: Array, second: Array, distance: str, row: int, column: int) -> list[float]:
    """Per channel what one position adds to the sum in a distance of (C, h, w)."""
    differences = [first[channel, row, column] - second[channel, row, column] for channel in range(first.shape[0])]
    return [difference**2 if distance == "l2" else abs(difference) for difference in differences]


def loop_maps(anchor: Array, positive: Array, negative: Array, distance: str) -> list[Array]:
    """Four maps of one image and one negative (C, h, w), one position after the other."""
    a, n, p = (
        loop_distances(*pair, distance) for pair in ((anchor, positive), (anchor, negative), (positive, negative))
    )
    channels, height, width = anchor.shape
    floor = loop_floor(p, positive, distance)
    maps = [np.zeros((height, width)) for _ in range(4)]
    for row in range(height):
        for column in range(width):
            if distance == "cosine":
                at = row * width + column
                unit = p[at] + floor
                values = a[at], n[at], a[at] / unit, max(p[at] - n[at], 0) / unit
            else:
                own = [
                    loop_parts(*pair, distance, row, column)
                    for pair in ((anchor, positive), (anchor, negative), (positive, negative))
                ]
                distances = [np.mean(each) * height * width for each in own[:2]]
                pull = push = 0.0
                for channel in range(channels):
                    near, far, gap = (each[channel] for each in own)
                    squared = distance == "l2"
                    pull += near / (a[channel] if squared else 1) / (p[channel] + floor)
                    if p[channel] > n[channel]:
                        push += (gap - far) / (p[channel] + n[channel] if squared else 1) / (p[channel] + floor)
                average = height * width / channels
                values = (
                    *(float(np.sqrt(each)) if squared else float(each) for each in distances),
                    pull * average,
                    push * average,
                )
            for drawn, value in zip(maps, values):
                drawn[row, column] = value
    return maps


@pytest.mark.parametrize("distance", ALL)
def test_maps_are_those_of_plain_loops(distance: str) -> None:
    anchor, positive, negatives = features(negatives=1)
    got = layer_maps(_built("triplet", distance), anchor, positive, negatives, weight=0.3)
    for image in range(2):
        arrays = (each.numpy() for each in (anchor[image], positive[image], negatives[0, image]))
        for drawn, expected in zip(got, loop_maps(*arrays, distance)):
            np.testing.assert_allclose(drawn[image].numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("distance", ALL)
def test_several_negatives_are_averaged(distance: str) -> None:
    anchor, positive, negatives = features()
    criterion = _built("triplet", distance)
    together = layer_maps(criterion, anchor, positive, negatives, 1.0)
    alone = [layer_maps(criterion, anchor, positive, negative[None], 1.0) for negative in negatives]
    for name in ("pull", "push"):
        mean = torch.stack([getattr(each, name) for each in alone]).mean(0)
        torch.testing.assert_close(getattr(together, name), mean)
    to_negative = torch.stack([each.to_negative for each in alone])
    mean = to_negative.square().mean(0).sqrt() if distance == "l2" else to_negative.mean(0)
    torch.testing.assert_close(together.to_negative, mean)


@pytest.mark.parametrize("name", EVERY)
def test_maps_add_up_to_what_is_logged(name: str) -> None:
    criterion = EVERY[name]()
    anchor, positive, negatives = features()
    terms = criterion(anchor, positive, negatives, 0.3)
    maps = layer_maps(criterion, anchor, positive, negatives, 0.3)
    assert maps.pull.mean().item() == pytest.approx(terms.pull.item(), rel=1e-9)
    assert maps.push.mean().item() == pytest.approx(terms.push.item(), rel=1e-9)
    assert terms.push > 0.02
    assert [each.shape for each in maps] == [torch.Size((2, 3, 5))] * 4


def test_every_criterion_is_among_them() -> None:
    assert {name.split()[0] for name in EVERY} >= {*CRITERIA} - {"triplet"}


@pytest.mark.parametrize("distance", ALL)
def test_map_of_distances_has_the_distances_units(distance: str) -> None:
    anchor, positive, negatives = features(count=1)
    criterion = _built("triplet", distance)
    maps = layer_maps(criterion, anchor, positive, negatives, 1.0)
    terms = np.array(loop_distances(anchor[0].numpy(), positive[0].numpy(), distance))
    expected = np.sqrt((terms**2).mean()) if distance == "l2" else terms.mean()
    assert map_value(maps.to_target, criterion.distance) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("margin", [0.5, 2.0])
def test_fixed_margin_scales_features_as_its_loss_does(margin: float) -> None:
    anchor, positive, negatives = features(count=1)
    maps = [layer_maps(_built("triplet", margin=margin), anchor, positive, negatives, weight) for weight in (1, 0.25)]
    torch.testing.assert_close(maps[1].to_target, maps[0].to_target / 4, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_images_give_zeros(name: str, dtype: torch.dtype) -> None:
    criterion = EVERY[name]()
    _, positive, negatives = (each.to(dtype) for each in features())
    at_target = layer_maps(criterion, positive, positive, negatives, 0.3)
    assert at_target.pull.abs().max() < 1e-5
    assert at_target.push.abs().max() < 1e-5
    at_negative = layer_maps(criterion, negatives[0], positive, negatives[:1], 0.3)
    torch.testing.assert_close(at_negative.pull, at_negative.push, rtol=1e-4, atol=1e-4)
    nothing = layer_maps(criterion, positive, positive, positive[None], 0.3)
    assert all(each.isfinite().all() for each in nothing)
