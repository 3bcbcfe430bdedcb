"""The numbers per layer against plain loops, and each warning by a loss that deserves it."""

import copy
import gc
import math
import pickle
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clp_basicsr import CLPLoss, probe
from clp_basicsr.advice import advice
from clp_basicsr.criteria.triplet import RelativeTriplet
from clp_basicsr.diagnostics import LAYER, Report, layer_numbers, layer_sums
from clp_basicsr.distances import DISTANCES
from clp_basicsr.probe import EVERY

from .oracles import loop_distances, loop_sizes, upsampled


class Model(SimpleNamespace):
    """A host's, which a loss can be bound to."""


def features(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positive, negative, noise = (torch.randn(2, 6, 4, 5, dtype=torch.float64, generator=generator) for _ in range(3))
    negative[:, 2] = positive[:, 2] + 1e-4 * noise[:, 2]  # as good as flat
    return negative + 1.3 * (positive - negative) + 0.3 * noise, positive, negative[None]


def test_layers_equal_plain_loops() -> None:
    anchor, positive, negatives = features(0)
    terms = RelativeTriplet(DISTANCES["l2"])(anchor, positive, negatives, 1.0)
    got = dict(zip(LAYER, layer_numbers(layer_sums(anchor, positive, negatives, terms)).tolist()))

    progress, overshoot, away, flat = [], [], [], 0
    for a, p, n in zip(*(each.numpy() for each in (anchor, positive, negatives[0]))):
        gaps = loop_distances(p, n, "l2")
        floor = 0.05 * np.mean(gaps) + 0.01 * np.mean(loop_sizes(p, "l2")) + 1e-6
        for channel, gap in enumerate(gaps):
            if gap <= 0.5 * (gap + floor):
                flat += 1
                continue
            way = p[channel] - n[channel]
            gone = ((a[channel] - n[channel]) * way).sum() / gap**2
            progress.append(gone)
            overshoot.append(max(gone - 1, 0))
            away.append(np.linalg.norm(a[channel] - n[channel]) / (gap + floor))
    assert flat == 2
    expected = {"progress": progress, "overshoot": overshoot, "from_negative": away}
    assert {name: got[name] for name in expected} == pytest.approx({k: np.mean(v) for k, v in expected.items()})
    assert got["flat"] == pytest.approx(2 / 12)
    assert got["pull"] == pytest.approx(terms.pull.item())


GT = F.interpolate(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)), scale_factor=4, mode="bicubic")
GT = GT.clamp(0, 1)
LR = F.avg_pool2d(GT, 4)
BICUBIC = upsampled(LR, (64, 64))


def report(sr: Tensor, gt: Tensor = GT, lr: Tensor = LR, **keywords: Any) -> tuple[Report, float]:
    loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1, "relu2_2": 1}, **keywords)
    loss(sr.clone().requires_grad_(), gt, lr).backward()
    assert loss.diagnostics is not None
    return loss.diagnostics.read(), float(loss.weight)


def said(sr: Tensor, gt: Tensor = GT, lr: Tensor = LR, **keywords: Any) -> set[str]:
    range_norm = keywords.get("range_norm", False)
    return {kind for kind, _ in advice(*report(sr, gt, lr, **keywords), range_norm=range_norm)}


HALF = 0.5 * GT + 0.5 * BICUBIC
QUIET = {"loss_weight": 1e-3}


def test_nothing_to_say_about_a_healthy_loss() -> None:
    assert said(HALF, **QUIET) == set()


@pytest.mark.parametrize(
    ("kind", "sr", "gt", "lr", "keywords"),
    [
        ("range", 2 * HALF - 1, 2 * GT - 1, 2 * LR - 1, QUIET),
        ("range", 255 * HALF, 255 * GT, 255 * LR, QUIET),
        ("flat", HALF, GT, GT, QUIET),
        ("negative", BICUBIC, GT, LR, QUIET),
        ("dead", 0.9 * GT + 0.1 * BICUBIC, GT, LR, {"margin": 1e-3, **QUIET}),
        ("overshoot", GT + 0.8 * (GT - BICUBIC), GT, LR, QUIET),
        ("gradient", HALF, GT, LR, {"loss_weight": 1.0}),
    ],
)
def test_each_warning(kind: str, sr: Tensor, gt: Tensor, lr: Tensor, keywords: dict[str, Any]) -> None:
    assert kind in said(sr, gt, lr, **keywords)


USUAL = {"pull": 0.5, "push": 0.3, "active": 1.0, "progress": 0.5, "overshoot": 0.0, "flat": 0.1, "from_negative": 0.5}
WHOLE = {"gradient_ratio": 1.0, "target_min": 0.0, "target_max": 1.0}


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({}, []),
        ({"target_max": 1.04, "target_min": -0.04}, []),
        ({"target_max": 1.06}, ["range"]),
        ({"target_min": -0.06}, ["range"]),
        ({"flat": 0.89}, []),
        ({"flat": 0.91, "from_negative": 0.0, "active": 0.0}, ["flat"]),  # what else is off follows from it
        ({"active": 0.009}, ["dead"]),
        ({"active": 0.011}, []),
        ({"active": 0.009, "pull": 0.04}, []),  # there is nothing left to do
        ({"from_negative": 0.019}, ["negative"]),
        ({"from_negative": 0.021}, []),
        ({"overshoot": 0.19}, []),
        ({"overshoot": 0.21}, ["overshoot"]),
        ({"gradient_ratio": 9.9}, []),
        ({"gradient_ratio": 10.1}, ["gradient"]),
    ],
    ids=str,
)
def test_each_threshold_from_both_sides(changed: dict[str, float], kinds: list[str]) -> None:
    layers = {name: {**USUAL, **{key: changed[key] for key in changed.keys() & USUAL}} for name in ("first", "second")}
    read = Report(layers, {**WHOLE, **{key: changed[key] for key in changed.keys() & WHOLE}})
    assert [kind for kind, _ in advice(read, 1.0)] == kinds


def test_images_that_are_not_in_the_range_that_range_norm_says() -> None:
    assert "range" in said(HALF, GT, LR, range_norm=True, **QUIET)
    bright = [0.6 + 0.4 * images for images in (HALF, GT, LR)]
    assert "range" not in said(*bright, **QUIET)


def test_range_norm_is_the_cure_it_says() -> None:
    assert "range" not in said(2 * HALF - 1, 2 * GT - 1, 2 * LR - 1, range_norm=True, **QUIET)


def test_the_weight_it_advises_makes_the_parts_equal() -> None:
    read, weight = report(HALF, loss_weight=1.0)
    advised = weight / read.whole["gradient_ratio"]
    assert report(HALF, loss_weight=advised)[0].whole["gradient_ratio"] == pytest.approx(1, rel=1e-3)
    (text,) = (text for kind, text in advice(read, weight) if kind == "gradient")
    assert f"{advised:.1e}" in text


def one_layer(**keywords: Any) -> CLPLoss:
    return CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1}, **keywords)


def gradient_ratio(loss: CLPLoss) -> float:
    assert loss.diagnostics is not None
    return loss.diagnostics.read().whole["gradient_ratio"]


@pytest.mark.parametrize("keywords", [{}, {"chunk": 1}, {"warmup_iter": 3}, {"auto_weight": 0.5}, {"checkpoint": True}])
def test_gradient_ratio_is_the_one_at_the_sr_image(keywords: dict[str, Any]) -> None:
    """Whatever else the host computes from SR, and whatever it multiplies its losses by."""
    sr = HALF.clone().requires_grad_()
    (own,) = torch.autograd.grad(one_layer(loss_weight=0.3, **keywords)(sr, GT, LR), sr)
    (pixel,) = torch.autograd.grad(F.l1_loss(sr, GT), sr)
    expected = (own.norm() / pixel.norm()).item()

    for factor in (1, 1024, -1 / 4):
        loss, weight = one_layer(loss_weight=0.3, **keywords), torch.ones((), requires_grad=True)
        output = weight * HALF
        total = factor * (loss(output, GT, LR) + 3 * F.mse_loss(output, GT) + output.square().sum())
        assert math.isnan(gradient_ratio(loss)), "before the backward pass"
        total.backward()
        assert gradient_ratio(loss) == pytest.approx(expected, rel=1e-4)


def test_a_step_that_overflows_says_nothing_of_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "GRADIENT_EVERY", 1)
    loss, told = one_layer(), []
    for factor in (1.0, math.inf, 1.0):
        (factor * loss(HALF.clone().requires_grad_(), GT, LR)).backward()
        told.append(gradient_ratio(loss))
    assert math.isfinite(told[0])
    assert told == pytest.approx([told[0]] * 3)


def test_the_host_may_walk_back_twice() -> None:
    sr, loss = HALF.clone().requires_grad_(), one_layer()
    value = loss(sr, GT, LR)
    (first,) = torch.autograd.grad(value, sr, retain_graph=True)
    told = gradient_ratio(loss)
    (again,) = torch.autograd.grad(2 * value, sr)
    assert torch.equal(again, 2 * first)
    assert gradient_ratio(loss) == pytest.approx(told, rel=1e-6)


def test_a_second_derivative_is_none_of_its_business() -> None:
    """A gradient penalty walks through SR once more, without the loss."""
    of_the_norm = []
    for measured in (True, False):
        sr, loss = HALF.clone().requires_grad_(), one_layer(diagnostics=measured)
        (gradient,) = torch.autograd.grad(loss(sr, GT, LR), sr, create_graph=True)
        if measured:
            told = gradient_ratio(loss)
        gradient.square().sum().backward()
        if measured:
            assert gradient_ratio(loss) == told > 0
        of_the_norm.append(sr.grad)
    assert of_the_norm[0] is not None
    assert of_the_norm[0].abs().sum() > 0
    assert torch.equal(*of_the_norm)


def needs_a_mask(sr: Tensor, gt: Tensor, mask: Tensor) -> Tensor:
    return F.l1_loss(sr * mask, gt * mask)


@pytest.mark.parametrize(
    ("pixel_loss", "said"),
    [
        (needs_a_mask, "fails: .*missing 1 required positional argument: 'mask'"),
        ([nn.L1Loss()], "fails: 'list' object is not callable"),
        (nn.ModuleList([nn.L1Loss()]), "fails: Module .ModuleList. is missing"),
        (lambda sr, gt: (F.mse_loss(sr, gt), None), "gives a tuple"),
        (nn.L1Loss(reduction="none"), f"gives {GT.numel()} numbers"),
        (lambda sr, gt: torch.zeros(()), "gives one without gradient"),
        (one_layer(), "is itself a CLPLoss, or holds one"),
        (nn.Sequential(one_layer()), "is itself a CLPLoss, or holds one"),
    ],
)
def test_a_pixel_loss_of_another_kind_is_warned_of_and_l1_stands_in(pixel_loss: Any, said: str) -> None:
    class Model:
        cri_pix = pixel_loss if isinstance(pixel_loss, (list, nn.Module)) else staticmethod(pixel_loss)

    model = Model()
    for keywords in ({"diagnostics": True}, {"auto_weight": 0.1, "diagnostics": False}):
        alone, held = one_layer(**keywords), one_layer(**keywords).bind(model)
        values = [alone(HALF.clone().requires_grad_(), GT, LR)]
        with pytest.warns(UserWarning, match=f"`cri_pix.sr, gt.` and give a number, but this {said}"):
            values.append(held(HALF.clone().requires_grad_(), GT, LR))
        assert torch.equal(*values)
        if keywords["diagnostics"]:
            for value in values:
                value.backward()
            assert gradient_ratio(held) == gradient_ratio(alone) > 0


def test_a_single_crop_with_a_large_gradient_is_no_reason_to_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVERY", "GRADIENT_EVERY"):
        monkeypatch.setattr(probe, name, 2)
    loss = one_layer(loss_weight=0.05, use_input_norm=False)
    usual = HALF, GT, LR
    dark = [images / 30 for images in usual]
    warned = []
    for sr, gt, lr in (usual, usual, dark, usual, dark, dark):
        for _ in range(2):
            loss(sr.clone().requires_grad_(), gt, lr).backward()
        assert loss.diagnostics is not None
        warned.append("gradient" in {kind for kind, _ in advice(loss.diagnostics.read(), 0.05)})
    assert warned == [False, False, False, False, True, True]


def test_a_validation_is_not_measured() -> None:
    loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1})
    loss(HALF, GT, LR)
    assert loss.diagnostics is not None
    told = loss.diagnostics.read()
    with torch.no_grad():
        for _ in range(EVERY):
            loss(GT, GT, LR)
    assert loss.diagnostics.read().layers == told.layers


def test_measured_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1})
    seen: dict[float, int] = {}
    for call in range(1, 2 * EVERY + 2):
        loss(torch.lerp(GT, HALF, call / EVERY), GT, LR)
        assert loss.diagnostics is not None
        seen.setdefault(loss.diagnostics.read().mean("pull"), call)
    assert [*seen.values()] == [1, EVERY, 2 * EVERY]  # hosts log every 50th or 100th
    assert math.isnan(loss.diagnostics.read().whole["gradient_ratio"])  # SR required no gradient
    assert "clp/gradient_ratio" not in loss.diagnostics.read().scalars()
    assert "clp/relu1_2/progress" in loss.diagnostics.read().scalars()


def test_measured_at_the_iterations_of_the_model() -> None:
    """Which it is resumed at, and which pass before `start_iter` too."""
    model = Model(schedulers=[SimpleNamespace(last_epoch=0)], lq=LR)
    loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1}).bind(model)
    seen: dict[float, int] = {}
    for iteration in range(17, 17 + 2 * EVERY):
        model.schedulers[0].last_epoch = iteration - 1
        loss(torch.lerp(GT, HALF, iteration / EVERY), GT)
        assert loss.diagnostics is not None
        seen.setdefault(loss.diagnostics.read().mean("pull"), iteration)
    assert [*seen.values()] == [17, 20, 30]


@pytest.mark.parametrize("epoch", [1, EVERY])
def test_measured_beside_schedulers_that_count_epochs(epoch: int) -> None:
    model = Model(schedulers=[SimpleNamespace(last_epoch=epoch - 1)], lq=LR)
    loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1}).bind(model)
    seen: dict[float, int] = {}
    for call in range(1, 5 * EVERY):
        loss(torch.lerp(GT, HALF, call / EVERY), GT)
        assert loss.diagnostics is not None
        seen.setdefault(loss.diagnostics.read().mean("pull"), call)
    assert [*seen.values()] == [1, 1 + 2 * EVERY, 1 + 4 * EVERY]


@pytest.mark.parametrize("way", [0.05, 1.5])
def test_in_parts_it_says_the_same(way: float) -> None:
    """Also where a part is all sky, and none of its terms says anything."""
    torch.manual_seed(0)
    gt = torch.rand(4, 3, 24, 20)
    gt[:3] = 0.5
    lr = F.avg_pool2d(gt, 4)
    up = F.interpolate(lr, size=gt.shape[-2:], mode="bicubic").clamp(0, 1)
    told = []
    for chunk in (None, 2, 1):
        loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_1": 0.5, "relu2_1": 1.0}, chunk=chunk)
        loss(torch.lerp(up, gt, way).requires_grad_(), gt, lr)
        assert loss.diagnostics is not None
        told.append(loss.diagnostics.read())
    for other in told[1:]:
        for layer, row in told[0].layers.items():
            # Whether a difference of nothing is quite 0 is a matter of rounding.
            expected = {name: value for name, value in row.items() if name != "active"}
            assert {name: other.layers[layer][name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_a_copy_measures_from_its_own_first_call_on(copied: Callable[[CLPLoss], CLPLoss]) -> None:
    loss = one_layer()
    for _ in range(2):
        loss(HALF, GT, LR)
    twin, fresh = copied(loss), one_layer()
    assert twin.diagnostics is None
    for each in (twin, fresh):
        each(BICUBIC, GT, LR)
    assert twin.diagnostics is not None
    assert fresh.diagnostics is not None
    assert loss.diagnostics is not None
    assert twin.diagnostics.read().layers == fresh.diagnostics.read().layers != loss.diagnostics.read().layers


def test_a_pixel_loss_of_which_a_part_is_never_walked_is_forgotten() -> None:
    """What an operation keeps of its own result, here exp's, must not keep the graph."""
    weights: list[weakref.ref[Any]] = []

    def pixel(sr: Tensor, gt: Tensor) -> tuple[Tensor, None]:
        weight = np.ones(sr.shape, dtype=np.float32)
        weights.append(weakref.ref(weight))
        return ((sr - gt) * torch.from_numpy(weight)).exp().sum(), None

    model = Model(cri_pix=pixel)
    loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1}).bind(model)
    with pytest.warns(UserWarning, match="gives a tuple"):
        loss(HALF.clone().requires_grad_(), GT, LR).backward()
    gc.collect()
    assert [each() is None for each in weights] == [True]


def test_off() -> None:
    loss = CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1}, diagnostics=False)
    loss(HALF, GT, LR)
    assert loss.diagnostics is None


def test_measuring_changes_neither_value_nor_gradient() -> None:
    results = []
    for on in (True, False):
        sr = HALF.clone().requires_grad_()
        value = CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1}, diagnostics=on)(sr, GT, LR)
        results.append((value.detach(), torch.autograd.grad(value, sr)[0]))
    assert all(torch.equal(*pair) for pair in zip(*results))


def test_the_gradient_during_a_warm_up_is_that_at_the_weight_of_now() -> None:
    """Measured in the first call, at a tenth of the weight, it is reported when the weight has grown."""
    loss, whole = (one_layer(loss_weight=10.0, **keywords) for keywords in ({"warmup_iter": 4}, {}))
    for each in (loss, whole):
        each(sr := HALF.clone().requires_grad_(), GT, LR).backward()
    for _ in range(3):
        loss(sr, GT, LR)
    assert float(loss.weight) == 10
    assert gradient_ratio(loss) == pytest.approx(gradient_ratio(whole), rel=1e-5)
