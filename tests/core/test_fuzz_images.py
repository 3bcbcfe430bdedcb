"""Calls with every kind of images: a finite scalar, or an error that says which of them cannot be meant."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import attempt, check_finite, examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from clp_basicsr import CLPLoss

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DTYPES = (
    *FLOATS, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex32,
    torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.quint8,
)  # fmt: skip
NO_IMAGES = (
    None, 3, 0.5, "image", b"image", [], [1.0], {"lq": 1}, object(), np.zeros((2, 3, 8, 8), np.float32), torch, Tensor,
    nn.Identity(), float("nan"), (torch.zeros(2, 3, 8, 8),),
)  # fmt: skip
NOT_POSSIBLE = (RuntimeError, IndexError, TypeError, AttributeError, ValueError)
"""What torch says where a change does not go with the one before it."""
Change = Callable[[Any], Any]


class OwnTensor(Tensor):
    """A subclass, as data sets with metadata have them."""


def converted(dtype: torch.dtype) -> Change:
    def change(images: Tensor) -> Tensor:
        if dtype == torch.quint8:
            return torch.quantize_per_tensor(images, 0.1, 0, dtype)
        return images.to(dtype)

    return change


def inference(images: Tensor) -> Tensor:
    with torch.inference_mode():
        return images.clone()


def strided(images: Tensor) -> Tensor:
    return images.transpose(-1, -2).contiguous().transpose(-1, -2)


def every_second(images: Tensor) -> Tensor:
    return images.repeat_interleave(2, -1)[..., ::2]


def expanded(images: Tensor) -> Tensor:
    return images[:1].expand(images.shape)


def nested(images: Tensor) -> Tensor:
    return torch.nested.nested_tensor(list(images))


def filled(value: float) -> Change:
    return lambda images: torch.full_like(images, value)


SAME_KIND: tuple[Change, ...] = (
    *map(converted, FLOATS), inference, strided, every_second, expanded, nn.Parameter, filled(0.0), filled(1.0),
    filled(0.5), filled(-3.0), filled(100.0), lambda images: images.as_subclass(OwnTensor),
    lambda images: images * 2 - 1,
    lambda images: images.clone().requires_grad_(), lambda images: images.clone().requires_grad_() * 1,
)  # fmt: skip
"""What may be done to images: they are still ones."""
VALUES: tuple[Change, ...] = tuple(map(filled, (math.nan, math.inf, -math.inf, 1e30, -1e38)))
"""Values of which nothing finite can be made; no value is looked at, so nothing can be said either."""
OTHERS: tuple[Change, ...] = (
    *map(converted, DTYPES[len(FLOATS) :]), *(lambda images, each=each: each for each in NO_IMAGES),
    lambda images: images.to("meta"), lambda images: images[0], lambda images: images[None],
    lambda images: images.sum(),
    lambda images: images[:0], lambda images: images[:, :0], lambda images: images[..., :0], lambda images: images[:1],
    lambda images: images[:, :1], lambda images: images[:, :2], lambda images: images[..., :1, :1],
    lambda images: images.repeat_interleave(2, 0), lambda images: images.repeat_interleave(3, -1),
    lambda images: images.repeat_interleave(2, -2), lambda images: images.flatten(),
    lambda images: images.movedim(1, -1),
    lambda images: images.to_sparse(), lambda images: images.to_mkldnn(), nested, lambda images: images[:, None],
    lambda images: images[:, None].expand(-1, 3, -1, -1, -1), lambda images: images[:, None, :, :, :][:, :0],
    lambda images: images.unflatten(0, (1, -1)), lambda images: images[None, None], lambda images: images.conj(),
)  # fmt: skip
"""What turns images into something else; of some of these an image comes out again."""


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[Any], bool]:
    """Return SR, GT and LR with up to three changes, and whether their values are ordinary ones."""
    count, channels, scale = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 3, 3])), draw(st.integers(1, 4))
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    frames = draw(st.sampled_from([None, None, None, 1, 2]))
    lead = (count, channels) if frames is None else (count, frames, channels)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    large, small = ((*lead, height * each, width * each) for each in (4 * scale, 4))
    images: list[Any] = [torch.rand(shape, generator=generator) for shape in (large, large, small)]
    if draw(st.booleans()):
        images[0].requires_grad_()
    ordinary = True
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        kind = draw(st.sampled_from([SAME_KIND, SAME_KIND, OTHERS, OTHERS, VALUES]))
        change = draw(st.sampled_from(kind))
        for place in draw(st.sampled_from([[0], [1], [2], [0, 1], [0, 1, 2]])):
            with contextlib.suppress(*NOT_POSSIBLE):
                images[place] = change(images[place])
                ordinary = ordinary and kind is not VALUES
    return images, ordinary


def is_batch(images: object, ranks: tuple[int, ...]) -> bool:
    if not isinstance(images, Tensor) or images.layout != torch.strided or images.is_nested or images.is_quantized:
        return False
    known = images.dtype in FLOATS and images.device.type == "cpu" and images.dim() in ranks
    return known and 0 not in images.shape and images.shape[-3] in (1, 3)


def fit(sr: Any, target: Any, lr: Any) -> bool:
    """Return whether README and docstrings say that the loss takes these."""
    if not is_batch(sr, (4, 5)) or not is_batch(target, (4, 5)) or not is_batch(lr, (4, 5)):
        return False
    if sr.shape != target.shape or lr.shape[-2] > sr.shape[-2] or lr.shape[-1] > sr.shape[-1]:
        return False
    if sr.dim() == lr.dim():
        return bool(sr.shape[: sr.dim() - 3] == lr.shape[: sr.dim() - 3])
    return sr.dim() == 4 and sr.shape[0] in (lr.shape[0], lr.shape[0] * lr.shape[1])


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "plain": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "float16": lambda: torch.autocast("cpu", torch.float16),
}
LOSSES: tuple[dict[str, Any], ...] = (
    {}, {}, {}, {"auto_weight": 0.1}, {"start_iter": 1}, {"criterion": "infonce"}, {"criterion": "ratio"},
    {"criterion": "directional"}, {"preset": "rlfn"}, {"margin": 0.5, "distance": "cosine", "swap": True},
    {"margin": 1.0, "reduction": "nonzero", "soft": True}, {"negatives": ["lr", "blur", "degraded", "batch"]},
    {"precision": "bfloat16"}, {"precision": "float16"}, {"range_norm": True}, {"input_scale": 255.0},
    {"align_corners": True, "invert_equal_pixels": True}, {"distance": "l1", "diagnostics": False},
)  # fmt: skip


def contents(images: object) -> object:
    """Return what a call may not change."""
    if not isinstance(images, Tensor) or images.is_inference() or images.device.type == "meta":
        return None
    return images._version


class Network(nn.Module):
    """A network of the user's that may return anything."""

    def __init__(self, changes: list[Change]) -> None:
        super().__init__()
        self.changes = changes

    def forward(self, images: Any) -> Any:
        return changed(nn.functional.interpolate(images, size=(8, 8)), self.changes)


class Model:
    """A model of the user's: what a bound loss reads from it."""

    def __init__(self, lq: Any, neg: Any, net_g: Any) -> None:
        self.lq, self.neg, self.net_g = lq, neg, net_g


def changed(images: Any, changes: list[Change]) -> Any:
    for change in changes:
        with contextlib.suppress(*NOT_POSSIBLE):
            images = change(images)
    return images


CHANGES = st.lists(st.sampled_from([*SAME_KIND, *OTHERS]), max_size=2)


@given(lq=CHANGES, neg=CHANGES, output=CHANGES, source=st.sampled_from(["lr", "files", "lagged"]), frames=st.booleans())
@examples(200)
def test_what_a_model_holds(
    lq: list[Change], neg: list[Change], output: list[Change], source: str, frames: bool
) -> None:
    gt = torch.rand(2, 3, 8, 8)
    other = torch.rand(2, 2, 3, 8, 8) if frames else gt
    model = Model(changed(torch.rand(2, 3, 4, 4), lq), changed(other, neg), Network(output))
    value = attempt(lambda: CLPLoss("random_convs", negatives=source).bind(model)(gt, gt))
    if isinstance(value, Tensor):
        check_finite(value, gt)


@pytest.mark.parametrize("model", [object, Model("lq", 3, None), nn.Identity(), 3, None, "model", print, [], {}])
def test_what_a_model_cannot_be(model: Any) -> None:
    for source in ("lr", "files", "lagged"):
        loss = CLPLoss("random_convs", negatives=source)
        bound = attempt(lambda loss=loss: loss.bind(model))
        if isinstance(bound, CLPLoss):
            assert isinstance(
                attempt(lambda loss=loss: loss(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))), Exception
            )


@given(call=calls(), keywords=st.sampled_from(LOSSES), context=st.sampled_from([*CONTEXTS]))
@examples(600)
def test_images(call: tuple[list[Any], bool], keywords: dict[str, Any], context: str) -> None:
    images, ordinary = call
    loss = CLPLoss(model="random_convs", **keywords)
    before = [contents(each) for each in images]
    with CONTEXTS[context]():
        value = attempt(lambda: loss(*images))
    assert isinstance(value, Tensor) == fit(*images), value
    assert [contents(each) for each in images] == before
    if isinstance(value, Tensor) and ordinary:
        check_finite(value, images[0])
