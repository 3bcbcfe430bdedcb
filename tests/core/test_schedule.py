"""`start_iter` and `warmup_iter`."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from clp_basicsr import CLPLoss
from clp_basicsr.clock import tell


def images(size: int, seed: int) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


GT, LR = images(32, 1), images(8, 2)
SR = images(32, 0).requires_grad_()


def loss_with(**keywords: Any) -> CLPLoss:
    return CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1}, loss_weight=0.5, **keywords)


class Model:
    def __init__(self, iteration: int) -> None:
        self.schedulers = [SimpleNamespace(last_epoch=iteration - 1)]


FULL = loss_with()(SR, GT, LR).item()


@pytest.mark.parametrize(
    ("start", "warmup", "shares"),
    [
        (0, 0, {1: 1.0, 5: 1.0}),
        (3, 0, {1: 0.0, 3: 0.0, 4: 1.0}),
        (0, 4, {1: 0.25, 2: 0.5, 4: 1.0, 9: 1.0}),
        (10, 5, {10: 0.0, 11: 0.2, 15: 1.0, 99: 1.0}),
    ],
)
def test_share_of_the_full_weight(start: int, warmup: int, shares: dict[int, float]) -> None:
    for iteration, share in shares.items():
        model = Model(iteration)
        value = loss_with(start_iter=start, warmup_iter=warmup).bind(model)(SR, GT, LR)
        assert value.item() == pytest.approx(share * FULL, rel=1e-5)


def test_what_a_host_tells_goes_before_its_schedulers() -> None:
    model = Model(iteration=99)
    tell(model, 4)
    assert loss_with(start_iter=2, warmup_iter=4).bind(model)(SR, GT, LR).item() == pytest.approx(0.5 * FULL, rel=1e-5)


def test_without_a_model_it_counts_its_calls() -> None:
    loss = loss_with(start_iter=2, warmup_iter=2)
    assert [loss(SR, GT, LR).item() / FULL for _ in range(5)] == pytest.approx([0, 0, 0.5, 1, 1], rel=1e-5)


def test_a_validation_does_not_count() -> None:
    loss, seen = loss_with(start_iter=2, warmup_iter=2), []
    for _ in range(5):
        seen.append(loss(SR, GT, LR).item() / FULL)
        with torch.no_grad():
            assert loss(SR, GT, LR).item() == pytest.approx(seen[-1] * FULL)
        assert loss(SR.detach(), GT, LR).item() == pytest.approx(seen[-1] * FULL)
    assert seen == pytest.approx([0, 0, 0.5, 1, 1], rel=1e-5)


def test_before_the_start_it_costs_nothing_after_the_first_call_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = loss_with(start_iter=2)
    calls, extract = [], loss.extractor.extract
    monkeypatch.setattr(loss.extractor, "extract", lambda images: calls.append(images) or extract(images))
    for _ in range(2):
        value = loss(SR, GT, LR)
        assert value.shape == ()
        assert len(calls) == 2  # the rehearsal: SR, and GT with LR
        assert loss.summary is None
        assert loss.diagnostics is None
        (gradient,) = torch.autograd.grad(value, SR)  # there is a graph: DDP finds every parameter used
        assert not gradient.any()


def test_before_the_start_it_is_in_float32_as_after_it() -> None:
    loss = loss_with(start_iter=1)
    half = [each.detach().half() for each in (SR, GT, LR)]
    half[0].requires_grad_()
    assert [loss(*half).dtype for _ in range(2)] == [torch.float32] * 2


def test_what_cannot_work_is_said_long_before_the_start() -> None:
    with pytest.raises(ValueError, match="`lr`"):
        loss_with(start_iter=5000)(SR, GT, images(64, 2))


@pytest.mark.parametrize("keyword", ["start_iter", "warmup_iter"])
@pytest.mark.parametrize(
    ("given", "kind"), [(-1, ValueError), (0.5, TypeError), ("5000", TypeError), (True, TypeError)]
)
def test_no_iteration(keyword: str, given: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"`{keyword}` must be a whole number >= 0"):
        loss_with(**{keyword: given})
