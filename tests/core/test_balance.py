"""`auto_weight`: the loss's gradient at the SR image as a share of the pixel loss's."""

import copy
import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clp_basicsr import CLPLoss
from clp_basicsr.balance import EVERY

SHARE = 0.1


def images(size: int, seed: int) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


GT, LR, SR = images(32, 1), images(8, 2), images(32, 0)


class Model:
    """A host's model at an iteration; its pixel loss is three times L1."""

    def __init__(self) -> None:
        self.schedulers = [SimpleNamespace(last_epoch=0)]
        self.pixel_calls = 0

    def cri_pix(self, sr: Tensor, target: Tensor) -> Tensor:
        self.pixel_calls += 1
        return 3 * F.l1_loss(sr, target)

    def at(self, iteration: int) -> "Model":
        self.schedulers[0].last_epoch = iteration - 1
        return self


def loss_with(**keywords: Any) -> CLPLoss:
    return CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1}, **keywords)


def norm(value: Tensor, sr: Tensor) -> float:
    return float(torch.autograd.grad(value, sr, retain_graph=True)[0].norm())


def leaf(scale: float = 1.0) -> Tensor:
    return (GT + scale * (SR - GT)).requires_grad_()


@pytest.mark.parametrize("scale", [1.0, 0.1])
@pytest.mark.parametrize("with_model", [False, True])
def test_gradient_is_the_share_of_the_pixel_losss(with_model: bool, scale: float) -> None:
    model, sr = Model(), leaf(scale)
    loss = loss_with(auto_weight=SHARE)
    if with_model:
        loss.bind(model)
    pixel = norm((3 if with_model else 1) * F.l1_loss(sr, GT), sr)
    assert norm(loss(sr, GT, LR), sr) == pytest.approx(SHARE * pixel, rel=1e-4)


def test_value_is_the_weight_times_the_loss() -> None:
    loss, sr = loss_with(auto_weight=SHARE), leaf()
    value = loss(sr, GT, LR)
    assert isinstance(loss.weight, Tensor)
    assert not loss.weight.requires_grad
    assert value.item() == pytest.approx(loss.weight.item() * loss_with()(sr, GT, LR).item(), rel=1e-5)


def test_loss_weight_is_the_cap() -> None:
    sr = leaf()
    assert loss_with(auto_weight=1e6, loss_weight=0.25)(sr, GT, LR).item() == pytest.approx(
        loss_with(loss_weight=0.25)(sr, GT, LR).item(), rel=1e-5
    )


@pytest.mark.parametrize("with_model", [False, True])
def test_measured_often_at_first_and_then_every_so_many_iterations(with_model: bool) -> None:
    """Without a model to read it from, every call that trains is an iteration."""
    model, loss = Model(), loss_with(auto_weight=SHARE)
    if with_model:
        loss.bind(model)
    measured, weight = [], 0.0
    for iteration in range(1, 10 + EVERY + 2):
        model.at(iteration)
        loss(leaf(1 / (1 + iteration % 7)), GT, LR)  # another weight is wanted than for the call before
        if float(loss.weight) != weight:
            measured.append(iteration)
        weight = float(loss.weight)
    assert measured == [*range(1, 11), 10 + EVERY]


def test_measured_at_once_where_the_iteration_goes_back() -> None:
    """A training that goes on from an earlier checkpoint, or begins anew, with the same model."""
    model, measured = Model(), []
    loss = loss_with(auto_weight=SHARE).bind(model)
    for iteration in (*range(991, 1001), 5, 6, 5 + EVERY):
        before = model.pixel_calls
        loss.bind(model.at(iteration))(leaf(), GT, LR)
        if model.pixel_calls > before:
            measured.append(iteration)
    assert measured == [*range(991, 1001), 5, 5 + EVERY]


def test_weight_is_an_even_mean_at_first_and_then_a_moving_average() -> None:
    single = {}
    for scale in (1.0, 0.3):
        alone = loss_with(auto_weight=SHARE).bind(owner := Model())
        alone(leaf(scale), GT, LR)
        assert owner.pixel_calls
        single[scale] = float(alone.weight)
    model, loss, seen = Model(), loss_with(auto_weight=SHARE), []
    for iteration in (*range(1, 11), 10 + EVERY):
        seen.append(0.3 if iteration % 2 else 1.0)
        loss.bind(model.at(iteration))(leaf(seen[-1]), GT, LR)
        even = sum(single[scale] for scale in seen[:10]) / len(seen[:10])
        expected = even if len(seen) <= 10 else 0.9 * even + 0.1 * single[seen[-1]]
        assert float(loss.weight) == pytest.approx(expected, rel=1e-4)


def test_measured_as_often_behind_a_late_start() -> None:
    model = Model()
    loss, measured = loss_with(auto_weight=SHARE, start_iter=500), []
    for iteration in (1, 500, *range(501, 520)):
        before = model.pixel_calls
        loss.bind(model.at(iteration))(leaf(), GT, LR)
        if model.pixel_calls > before:
            measured.append(iteration)
    assert measured == list(range(501, 511))


def test_a_dead_loss_has_the_cap_and_no_more() -> None:
    """Its gradient is 0, and what is divided by it infinite."""
    model = Model()
    model.cri_pix = lambda sr, target: F.l1_loss(sr, target, reduction="sum")  # type: ignore[method-assign]
    loss, weights = loss_with(auto_weight=SHARE, margin=1e-3, loss_weight=0.5), []
    for scale in (1e-4, 1e-4, 1.0):
        assert loss.bind(model)(leaf(scale), GT, LR).isfinite()
        weights.append(float(loss.weight))
    assert weights[:2] == [0.5, 0.5]
    assert 0 < weights[2] <= 0.5


def test_losses_of_one_network_have_weights_of_their_own() -> None:
    model = Model()
    keywords: list[dict[str, Any]] = [
        {"auto_weight": 1.0},
        {"auto_weight": 1e-3},
        {"auto_weight": 1.0, "margin": 1.0},
        {"auto_weight": 1.0, "distance": "l1"},
        {"auto_weight": 1.0, "loss_weight": 1e-4},
        {"auto_weight": 1.0, "negatives": "blur"},
        {"auto_weight": 1.0, "use_input_norm": False},
    ]
    alone = [loss_with(**each) for each in keywords]
    together = [loss_with(**each).bind(model) for each in keywords]
    model.cri_pix = F.l1_loss  # type: ignore[method-assign]
    for one, other in zip(alone, together):
        assert other(leaf(), GT, LR).item() == pytest.approx(one(leaf(), GT, LR).item(), rel=1e-5)


def test_saved_with_the_scheduler() -> None:
    """BasicSR saves what `scheduler.state_dict()` gives, and reads it with weights_only=True."""
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))])
    model = Model()
    model.schedulers = [torch.optim.lr_scheduler.MultiStepLR(optimizer, [5])]
    loss = loss_with(auto_weight=SHARE).bind(model)
    loss(leaf(), GT, LR)
    weight = float(loss.weight)

    file = io.BytesIO()
    torch.save(model.schedulers[0].state_dict(), file)
    file.seek(0)
    heir = Model()
    heir.schedulers = [torch.optim.lr_scheduler.MultiStepLR(optimizer, [5])]
    heir.schedulers[0].load_state_dict(torch.load(file, weights_only=True))
    resumed = loss_with(auto_weight=SHARE).bind(heir)
    with torch.no_grad():  # measures nothing: what it uses is what was saved
        resumed(leaf(), GT, LR)
    assert float(resumed.weight) == pytest.approx(weight)


def test_resumed_with_a_smaller_loss_weight_it_is_the_cap_at_once() -> None:
    model = Model()
    loss_with(auto_weight=SHARE).bind(model)(leaf(), GT, LR)
    for iteration in (2, 3):
        loss = loss_with(auto_weight=SHARE, loss_weight=1e-6).bind(model.at(iteration))
        loss(leaf(), GT, LR)
        assert float(loss.weight) == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"margin": 1}, {"margin": 1.0}),
        ({"negatives": "lr"}, {"negatives": ["lr"]}),
        ({"negatives": [{"type": "blur"}]}, {"negatives": {"type": "blur", "count": 1, "sigma": [0.5, 2]}}),
    ],
    ids=["margin", "negatives", "defaults"],
)
def test_resumed_with_the_same_settings_in_other_words(before: dict[str, Any], after: dict[str, Any]) -> None:
    model = Model()
    first = loss_with(auto_weight=SHARE, **before).bind(model)
    first(leaf(), GT, LR)
    resumed = loss_with(auto_weight=SHARE, **after).bind(model.at(2))
    with torch.no_grad():  # measures nothing
        resumed(leaf(), GT, LR)
    assert float(resumed.weight) == float(first.weight) < 1


def test_resumed_with_other_negatives_it_is_another_loss() -> None:
    model = Model()
    loss_with(auto_weight=SHARE, negatives=[{"type": "blur"}]).bind(model)(leaf(), GT, LR)
    other = loss_with(auto_weight=SHARE, negatives=[{"type": "blur", "sigma": [1.0, 2.0]}]).bind(model.at(2))
    with torch.no_grad():
        other(leaf(), GT, LR)
    assert float(other.weight) == 1


def test_float64() -> None:
    sr, gt, lr = (each.detach().double() for each in (leaf(), GT, LR))
    loss = loss_with(auto_weight=SHARE).double()
    value = loss(sr.requires_grad_(), gt, lr)
    assert value.dtype == torch.float64
    single = loss_with(auto_weight=SHARE)
    assert value.item() == pytest.approx(single(leaf(), GT, LR).item(), rel=1e-4)


def test_resumed_it_measures_in_the_same_iterations() -> None:
    weights: list[list[float]] = []
    for stop in (None, 13):
        optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))])
        model, loss = Model(), loss_with(auto_weight=SHARE)
        model.schedulers = [torch.optim.lr_scheduler.MultiStepLR(optimizer, [500])]
        weights.append([])
        for iteration in (*range(1, 20), 10 + EVERY, 11 + EVERY):
            if iteration == stop:
                state = copy.deepcopy(model.schedulers[0].state_dict())
                model, loss = Model(), loss_with(auto_weight=SHARE)
                model.schedulers = [torch.optim.lr_scheduler.MultiStepLR(optimizer, [500])]
                model.schedulers[0].load_state_dict(state)
            loss.bind(model.at(iteration))(leaf(1 / (1 + iteration % 7)), GT, LR)
            weights[-1].append(float(loss.weight))
    assert weights[0] == weights[1]
    assert len(set(weights[0])) == 11


@pytest.mark.parametrize("sr", [GT, torch.zeros_like(GT)])
def test_finite_whatever_the_gradients_are(sr: Tensor) -> None:
    sr = sr.clone().requires_grad_()
    value = loss_with(auto_weight=SHARE)(sr, GT, LR)
    value.backward()
    assert value.isfinite()
    assert sr.grad is not None
    assert bool(sr.grad.isfinite().all())


@pytest.mark.parametrize("spoilt", [1, 2])
def test_a_spoilt_batch_does_not_decide_the_later_ones(spoilt: int) -> None:
    model = Model()
    loss = loss_with(auto_weight=SHARE)
    weights = []
    for iteration in range(1, 5):
        sr = leaf().detach() * (float("nan") if iteration == spoilt else 1.0)
        loss.bind(model.at(iteration))(sr.requires_grad_(), GT, LR)
        weights.append(float(loss.weight))
    right = loss_with(auto_weight=SHARE).bind(other := Model())
    right(leaf(), GT, LR)
    assert other.pixel_calls
    expected = [float(right.weight)] * 4
    expected[0] *= spoilt != 1  # nothing is known yet
    assert weights == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("given", "kind"), [(0, ValueError), (-1, ValueError), ("0.1", TypeError), (True, TypeError)])
def test_no_share(given: object, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="`auto_weight` must be"):
        loss_with(auto_weight=given)


def test_gradients_too_small_for_half_precision_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a host's float16 autocast: the network's output and the gradient there are float16."""
    monkeypatch.setattr(Model, "cri_pix", lambda model, sr, target: 1e-6 * F.l1_loss(sr, target))
    weights, model = [], Model()
    for dtype in (torch.float32, torch.float16):
        loss, sr = loss_with(auto_weight=SHARE).bind(model), leaf().detach().half().to(dtype).requires_grad_()
        loss(sr, GT, LR)
        weights.append(float(loss.weight))
    assert weights[0] > 0
    assert weights[1] == pytest.approx(weights[0], rel=1e-3)
