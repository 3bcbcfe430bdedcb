"""`precision: float16` has a gradient, however small the loss's weight, however many images and however flat."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clp_basicsr import CLPLoss
from clp_basicsr.float16_range import features_in_range

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


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network["model"])
def test_a_flat_crop_beside_a_photo(network: dict[str, Any], level: float, images: Images) -> None:
    """Its gap is 0, and its gradient is of another size than the other's: each has its own scale."""
    flat = torch.full_like(images.gt[:1], level)
    noise = 1e-3 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1))
    both = Images(
        torch.cat((images.sr[:1].detach(), flat + noise)).requires_grad_(),
        torch.cat((images.gt[:1], flat)),
        torch.cat((images.lr[:1], flat[..., ::4, ::4])),
    )
    exact, half = (gradient(CLPLoss(**network, precision=each), both) for each in ("float32", "float16"))
    for image in (0, 1):
        assert cosine(half[image], exact[image]) > 0.9
        assert float(half[image].norm()) == pytest.approx(float(exact[image].norm()), rel=0.2)


def halves(images: Tensor) -> dict[str, Tensor]:
    return {"cubes": images.half().pow(3), "mean": images.half().mean((2, 3), keepdim=True)}


def test_gradient_is_that_of_the_features_and_there_is_no_second() -> None:
    given = torch.rand(2, 3, 4, 5, requires_grad=True)
    weights = torch.tensor([1e-9, 1e9]).view(2, 1, 1, 1)

    def total(images: Tensor) -> Tensor:
        maps = features_in_range(halves, images)
        assert {each.dtype for each in maps.values()} == {torch.float32}
        return (weights * (maps["cubes"].sum((2, 3), keepdim=True) + 5 * maps["mean"])).sum()

    expected = weights * (3 * given.detach() ** 2 + 5 / 20)
    (seen,) = torch.autograd.grad(total(given), given, create_graph=True)
    torch.testing.assert_close(seen.detach(), expected.expand_as(seen), rtol=5e-3, atol=0)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        seen.sum().backward()


def test_the_smallest_gradients_there_are() -> None:
    given = torch.rand(2, 3, 4, 5, requires_grad=True)
    (1e-42 * features_in_range(halves, given)["cubes"]).sum().backward()
    assert given.grad is not None
    assert bool(given.grad.isfinite().all())


def test_half_is_float16_too(images: Images) -> None:
    """`.half()` on the loss, where it had no gradient at the recipes' weight."""
    exact = gradient(CLPLoss("efficientnet_lite0", loss_weight=1e-7), images)
    seen = gradient(CLPLoss("efficientnet_lite0", loss_weight=1e-7).half(), images)
    assert cosine(seen, exact) > 0.95
    assert float(seen.double().norm()) == pytest.approx(float(exact.double().norm()), rel=0.05)


@pytest.mark.parametrize("upstream", [0.0, float("inf"), float("nan")])
def test_nothing_and_infinity_stay_what_they_are(upstream: float) -> None:
    """So that a host's scaler for float16 sees that a step has overflowed."""
    given = torch.rand(1, 3, 4, 5, requires_grad=True)
    (upstream * features_in_range(halves, given)["cubes"]).sum().backward()
    assert given.grad is not None
    assert bool((given.grad == 0).all() if upstream == 0 else (~given.grad.isfinite()).all())
