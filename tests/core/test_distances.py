"""Distances against plain loops, and their gradient where both features are equal."""

import numpy as np
import pytest
import torch
from torch import Tensor

from clp_basicsr.distances import DISTANCES

from .oracles import loop_distances, loop_sizes

ALL = ("l2", "l1", "cosine")


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_names() -> None:
    assert set(DISTANCES) == set(ALL)


@pytest.mark.parametrize("distance", ALL)
def test_distance_equals_plain_loops(distance: str) -> None:
    first, second = features(0, 3, 5, 4, 6), features(1, 3, 5, 4, 6)
    expected = [loop_distances(a.numpy(), b.numpy(), distance) for a, b in zip(first, second)]
    np.testing.assert_allclose(DISTANCES[distance].between(first, second).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("distance", ALL)
def test_distance_broadcasts_over_several_negatives(distance: str) -> None:
    anchor, negatives = features(0, 2, 5, 4, 6), features(1, 3, 2, 5, 4, 6)
    together = DISTANCES[distance].between(anchor, negatives)
    for index, negative in enumerate(negatives):
        torch.testing.assert_close(together[index], DISTANCES[distance].between(anchor, negative))


@pytest.mark.parametrize(("distance", "order"), [("l2", 2.0), ("l1", 1.0)])
def test_scale_and_eps_act_as_in_torchs_pairwise_distance(distance: str, order: float) -> None:
    first, second = features(0, 3, 5, 4, 6), features(1, 3, 5, 4, 6)
    expected = torch.nn.functional.pairwise_distance(0.3 * first.flatten(2), 0.3 * second.flatten(2), p=order, eps=0.02)
    torch.testing.assert_close(DISTANCES[distance].between(first, second, 0.3, 0.02), expected)


@pytest.mark.parametrize("distance", ALL)
def test_size_is_the_distance_from_nothing(distance: str) -> None:
    given = features(0, 2, 5, 4, 6)
    expected = [np.mean(loop_sizes(image.numpy(), distance)) for image in given]
    np.testing.assert_allclose(DISTANCES[distance].size(given).mean(-1).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("distance", ALL)
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("upstream", [1.0, 65536.0])  # the scale with which a float16 training begins
def test_equal_features_are_at_distance_0_with_gradient_0(distance: str, value: float, upstream: float) -> None:
    first = torch.full((2, 5, 4, 6), value, requires_grad=True)
    between = DISTANCES[distance].between(first, torch.full((2, 5, 4, 6), value))
    (gradient,) = torch.autograd.grad(upstream * between.sum(), first)
    assert torch.equal(between, torch.zeros_like(between))
    assert torch.equal(gradient, torch.zeros_like(first))


@pytest.mark.parametrize("distance", ALL)
def test_distances_are_symmetric(distance: str) -> None:
    first, second = features(0, 2, 5, 4, 6), features(1, 2, 5, 4, 6)
    between = DISTANCES[distance].between
    torch.testing.assert_close(between(first, second), between(second, first))


def test_cosine_is_torchs_cosine_where_features_are_not_tiny() -> None:
    first, second = features(0, 2, 5, 4, 6), features(1, 2, 5, 4, 6)
    expected = 1 - torch.nn.functional.cosine_similarity(first, second, dim=1).flatten(1)
    torch.testing.assert_close(DISTANCES["cosine"].between(first, second), expected, rtol=1e-6, atol=1e-6)


def test_cosine_sees_direction_only() -> None:
    first, second = features(0, 2, 5, 4, 6), features(1, 2, 5, 4, 6)
    between = DISTANCES["cosine"].between
    torch.testing.assert_close(between(3 * first, second), between(first, second), rtol=1e-6, atol=1e-6)
    assert float(between(3 * first, first).abs().max()) < 1e-6


@pytest.mark.parametrize("distance", ALL)
def test_gradient_is_the_numerical_one(distance: str) -> None:
    first, second = features(0, 2, 3, 2, 2).requires_grad_(), features(1, 2, 3, 2, 2)
    assert torch.autograd.gradcheck(lambda x: DISTANCES[distance].between(x, second), (first,))


@pytest.mark.parametrize("distance", ["l2", "l1"])
@pytest.mark.parametrize(("scale", "eps"), [(1.0, 0.0), (0.3, 0.02)])
@pytest.mark.parametrize("sets", [(), (1,), (3,)])
def test_gradients_of_both_sides_and_second_derivatives(
    distance: str, scale: float, eps: float, sets: tuple[int, ...]
) -> None:
    def between(first: Tensor, second: Tensor) -> Tensor:
        return DISTANCES[distance].between(first, second, scale, eps)

    first, second = features(0, 2, 3, 2, 2).requires_grad_(), features(1, *sets, 2, 3, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(between, (first, second))
    assert torch.autograd.gradgradcheck(between, (first, second))


def test_not_a_number_is_not_hidden_in_the_gradient() -> None:
    first, second = features(0, 1, 2, 2, 2), features(1, 1, 2, 2, 2)
    first[0, 0, 0, 0] = float("nan")
    (gradient,) = torch.autograd.grad(DISTANCES["l2"].between(first.requires_grad_(), second).sum(), first)
    assert gradient[0, 0].isnan().all()
    assert gradient[0, 1].isfinite().all()


@pytest.mark.parametrize("distance", ["l2", "l1"])
def test_nothing_of_a_maps_size_is_kept_but_the_maps(distance: str) -> None:
    """What autograd holds until the backward pass is the maps that are there anyway."""
    first, second = features(0, 2, 3, 4, 5).requires_grad_(), features(1, 3, 2, 3, 4, 5)
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        DISTANCES[distance].between(first, second, 0.5, 0.1).sum().backward()
    large = {tensor.data_ptr() for tensor in kept if tensor.numel() >= first.numel()}
    assert large == {first.data_ptr(), second.data_ptr()}
