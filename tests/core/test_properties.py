"""What holds for every shape and content."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clp_basicsr import CLPLoss

from .oracles import Images, upsampled

FEW = settings(max_examples=25, deadline=None, derandomize=True)
MARGINS = ("relative", 0.5)
DISTANCES = ("l2", "l1", "cosine")


@cache
def built(distance: str = "l2", margin: str | float = "relative", push_weight: float = 1.0) -> CLPLoss:
    layers = {"block1": 1.0, "block3": 0.5}
    keywords: dict[str, Any] = {"distance": distance, "margin": margin, "push_weight": push_weight}
    return CLPLoss("efficientnet_lite0", layer_weights=layers, **keywords)


@st.composite
def batches(draw: st.DrawFn, channels: tuple[int, ...] = (1, 3)) -> Images:
    count, depth, scale = draw(st.integers(1, 3)), draw(st.sampled_from(channels)), draw(st.integers(1, 4))
    height, width = draw(st.integers(32, 80)), draw(st.integers(32, 80))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    lr = torch.rand(count, depth, height // scale, width // scale, generator=generator)
    detail = 0.2 * torch.randn(count, depth, height, width, generator=generator)
    gt = (upsampled(lr, (height, width)) + detail).clamp(0, 1)
    sr = gt + 0.1 * torch.randn(gt.shape, generator=generator)
    return Images(sr.requires_grad_(), gt, lr)


@given(images=batches(), distance=st.sampled_from(DISTANCES), margin=st.sampled_from(MARGINS))
@FEW
def test_finite_not_negative_and_gradient_of_srs_shape(images: Images, distance: str, margin: str | float) -> None:
    value = built(distance, margin)(*images)
    (gradient,) = torch.autograd.grad(value, images.sr)
    assert value.shape == ()
    assert value.isfinite()
    assert value >= 0
    assert gradient.shape == images.sr.shape
    assert gradient.isfinite().all()


@given(images=batches(), distance=st.sampled_from(DISTANCES))
@FEW
def test_relative_is_0_at_gt_and_above_0_elsewhere(images: Images, distance: str) -> None:
    loss = built(distance)
    # The batched pass over GT rounds a little differently than SR's own.
    assert loss(images.gt, images.gt, images.lr) < 1e-4
    assert loss(*images) > 1e-2


@given(images=batches(channels=(3,)), distance=st.sampled_from(DISTANCES))
@FEW
def test_order_of_the_batch_does_not_matter(images: Images, distance: str) -> None:
    loss = built(distance)
    turned = loss(*(each.flip(0) for each in images))
    torch.testing.assert_close(turned, loss(*images), rtol=1e-4, atol=1e-6)


@given(images=batches(), distance=st.sampled_from(DISTANCES))
@FEW
def test_batch_is_the_mean_of_its_images(images: Images, distance: str) -> None:
    loss = built(distance)
    single = [loss(*(each[index : index + 1] for each in images)) for index in range(images.sr.shape[0])]
    torch.testing.assert_close(loss(*images), torch.stack(single).mean(), rtol=1e-3, atol=1e-6)


@given(images=batches(), push=st.sampled_from([0.1, 0.5, 2.5]))
@FEW
def test_value_is_linear_in_the_push_weight(images: Images, push: float) -> None:
    values = [built(push_weight=weight)(*images) for weight in (0, 1, push)]
    expected = values[0] + push * (values[1] - values[0])
    assert values[2].item() == pytest.approx(expected.item(), rel=1e-4)
    assert values[0] <= values[1]
