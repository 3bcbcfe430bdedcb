"""`precision: float16` has a gradient, however small the loss's weight and however many images there are."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clp_basicsr import CLPLoss
from clp_basicsr.float16_range import kept_in_range

from .oracles import Images, crop

Photos = tuple[Tensor, Tensor]
NETWORKS: list[dict[str, Any]] = [
    {"model": "efficientnet_lite0", "layer_weights": {"block1": 1, "block3": 0.5}},
    {"model": "random_convs"},
]


@pytest.fixture
def images(photo_batch: Photos) -> Images:
    return crop(photo_batch, 3, 64)


def gradient(loss: nn.Module, images: Images, factor: float = 1.0) -> Tensor:
    return torch.autograd.grad(factor * loss(*images), images.sr)[0]


def cosine(one: Tensor, other: Tensor) -> float:
    first, second = (each.double() / each.double().norm() for each in (one, other))
    return float((first * second).sum())


@pytest.mark.parametrize(
    "keywords", [{}, {"chunk": 1}, {"checkpoint": True}, {"margin": 1.0}, {"criterion": "infonce"}]
)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network["model"])
def test_gradient_of_a_small_weight_is_float32s(
    network: dict[str, Any], keywords: dict[str, Any], images: Images
) -> None:
    exact = gradient(CLPLoss(**network, **keywords), images)
    for weight in (1.0, 1e-3, 1e-9):
        seen = gradient(CLPLoss(**network, **keywords, precision="float16", loss_weight=weight), images)
        assert cosine(seen, exact) > 0.97
        assert float(seen.double().norm()) == pytest.approx(weight * float(exact.double().norm()), rel=0.03)


@pytest.mark.parametrize("factor", [2.0**-30, 2.0**16, 2.0**30])
def test_what_a_host_multiplies_its_losses_by_does_not_matter(factor: float, images: Images) -> None:
    loss = CLPLoss(**NETWORKS[0], precision="float16", diagnostics=False)
    assert torch.equal(gradient(loss, images, factor), factor * gradient(loss, images))


def test_auto_weight_measures_it(images: Images) -> None:
    keywords = {**NETWORKS[0], "auto_weight": 0.1}
    exact, half = (gradient(CLPLoss(**keywords, precision=precision), images) for precision in ("float32", "float16"))
    assert float(half.norm()) == pytest.approx(float(exact.norm()), rel=0.03)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network["model"])
def test_inside_a_compiled_step(network: dict[str, Any], images: Images) -> None:
    loss = CLPLoss(**network, precision="float16", loss_weight=5e-3, diagnostics=False)
    expected = gradient(loss, images)
    seen = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(*images), images.sr)[0]
    assert cosine(seen, expected) > 0.99
    assert float(seen.norm()) == pytest.approx(float(expected.norm()), rel=0.02)


def test_derivative_is_that_of_the_function_and_there_is_no_second() -> None:
    given = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)

    def outer(images: Tensor) -> Tensor:
        return 1e-3 * kept_in_range(lambda inner: inner.pow(3).mean(), images) ** 2

    assert torch.autograd.gradcheck(outer, given)
    (first,) = torch.autograd.grad(outer(given), given, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_inside_the_gradient_is_that_of_a_sum_times_what_is_given() -> None:
    """So float16 holds it: the mean's would be 1 / 6, times 1e-12."""
    given, seen = torch.rand(6, requires_grad=True), []

    def mean(images: Tensor) -> Tensor:
        images.register_hook(seen.append)
        return images.mean()

    (1e-12 * kept_in_range(mean, given)).backward()
    assert given.grad is not None
    torch.testing.assert_close(seen[0], torch.ones(6))
    torch.testing.assert_close(given.grad, torch.full((6,), 1e-12 / 6))
