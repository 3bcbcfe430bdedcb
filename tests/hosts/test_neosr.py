"""Real steps of neosr 0.1.0's `image` and `otf` models: what the loss sees, and what it makes of it."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import clp_basicsr
from hosts.neosr_runs import CLP, batches, build, calls, needs_neosr, neosr, neosr_options, registered, train
from hosts.options import SCALE
from hosts.realesrgan import DEGRADATIONS, POOL, batch, check_partners
from hosts.records import CLP_KEYS, Call

__all__ = ["calls", "neosr", "registered"]

pytestmark = [
    needs_neosr,
    pytest.mark.usefixtures("neosr"),
    pytest.mark.filterwarnings("ignore:weights=.random.", "ignore:.*CUDA is not available"),
]

SAM = {"sam": "fsam", "optim_g": {"type": "adamw", "lr": 1e-3}}
SCHEDULE_FREE = {"optim_g": {"type": "adan_sf", "lr": 1e-3, "schedule_free": True}}
SCHEDULED = {"scheduler": {"type": "multisteplr", "milestones": [50], "gamma": 0.5}}


def reference(**keywords: Any) -> clp_basicsr.CLPLoss:
    """The loss of the option file, outside any host."""
    return clp_basicsr.CLPLoss(**{name: value for name, value in {**CLP, **keywords}.items() if name != "type"})


@pytest.mark.parametrize("name", ["clp_loss", "CLPLoss"])
def test_weights_are_those_of_a_loop_written_by_hand(name: str, tmp_path: Path) -> None:
    model = build(neosr_options(perceptual_opt={**CLP, "type": name}), tmp_path)
    network, loss = copy.deepcopy(model.net_g), reference()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for given, log in zip(batches(5), train(model, batches(5)), strict=True):
        sr = network(given["lq"])
        pixel, perceptual = F.l1_loss(sr, given["gt"]), loss(sr, given["gt"], given["lq"])
        optimizer.zero_grad()
        (pixel + perceptual).backward()
        optimizer.step()
        assert log["l_g_percep"] == pytest.approx(perceptual.item(), rel=1e-4)
        assert log["l_g_total"] == pytest.approx((pixel + perceptual).item(), rel=1e-4)
        assert loss.summary is not None
        assert [log[key] for key in ("clp_pull", "clp_push", "clp_active")] == pytest.approx(
            [value.item() for value in loss.summary], rel=1e-3
        )
    for trained, expected in zip(model.net_g.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=1e-3, atol=1e-5)


def test_lr_is_the_models_own_batch(tmp_path: Path, calls: list[Call]) -> None:
    """Also where neosr's augmentations have mixed the pairs."""
    options = neosr_options()
    options["datasets"]["train"] |= {"augmentation": ["cutmix", "resizemix"], "aug_prob": [0.5, 0.5]}
    model, other = build(options, tmp_path), build(neosr_options(), tmp_path)
    other.feed_data(batches(1)[0])
    for _ in train(model, batches(3)):
        assert torch.equal(calls[-1].lr, model.lq)
        assert torch.equal(calls[-1].target, model.gt)
        assert F.l1_loss(F.avg_pool2d(model.gt, SCALE), model.lq) < 0.1


def test_otf_pairs_stay_together_through_the_pool(tmp_path: Path, calls: list[Call]) -> None:
    options = neosr_options(model_type="otf")
    options["datasets"]["train"] |= {**DEGRADATIONS, "patch_size": 16, "queue_size": POOL}
    model, fed = build(options, tmp_path), []
    for _ in train(model, (batch(step) for step in range(1, 7))):
        fed.append(model.gt)
        assert torch.equal(calls[-1].lr, model.lq)
        assert torch.equal(calls[-1].target, model.gt)
    assert model.queue_ptr == model.queue_size  # the pool was in use
    check_partners(calls)


def test_gan(tmp_path: Path) -> None:
    options = neosr_options(
        optim_d={"type": "adam", "lr": 1e-3}, gan_opt={"type": "gan_loss", "gan_type": "bce", "loss_weight": 0.1}
    )
    model = build({**options, "network_d": {"type": "unet", "num_feat": 4}}, tmp_path)
    for log in train(model, batches(2)):
        assert set(log) >= {"l_g_percep", "l_g_gan", "l_d_real", *CLP_KEYS}


@pytest.mark.parametrize("optimizer", [{}, SCHEDULE_FREE, SCHEDULED, SAM])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_schedule_counts_iterations_not_batches(optimizer: Any, accumulate: int, tmp_path: Path) -> None:
    """neosr's own counter goes up by two in every batch, and its schedulers follow that."""
    if "sam" in optimizer and accumulate > 1:
        pytest.skip("neosr refuses that")
    perceptual = {**CLP, "start_iter": 2, "warmup_iter": 2}
    model = build(neosr_options(accumulate=accumulate, perceptual_opt=perceptual, **optimizer), tmp_path)
    logs = list(train(model, batches(5 * accumulate)))
    values = [reference_value(model, log) for log in logs]
    expected = [share for share in (0, 0, 0.5, 1, 1) for _ in range(accumulate)]
    assert values == pytest.approx(expected)


def reference_value(model: Any, log: dict[str, float]) -> float:
    """The share of the full weight that a step's loss had."""
    if "clp_pull" not in log:
        assert log["l_g_percep"] == 0
        return 0.0
    return log["l_g_percep"] / (CLP["loss_weight"] * (log["clp_pull"] + log["clp_push"]))


@pytest.mark.parametrize("optimizer", [SCHEDULE_FREE, SCHEDULED])
def test_schedule_goes_on_after_a_resume(optimizer: Any, tmp_path: Path) -> None:
    """neosr's train.py goes on with the saved iteration times `accumulate`."""
    perceptual = {**CLP, "start_iter": 4, "warmup_iter": 2}
    model = build(neosr_options(accumulate=3, perceptual_opt=perceptual, **optimizer), tmp_path)
    values = [reference_value(model, log) for log in train(model, batches(6), start=12)]
    assert values == pytest.approx([0.5, 0.5, 0.5, 1, 1, 1])


def test_sam_asks_twice_about_the_same_images(tmp_path: Path, calls: list[Call]) -> None:
    lagged = {**CLP, "negatives": ["lr", {"type": "lagged", "every": 1}]}
    model = build(neosr_options(perceptual_opt=lagged, **SAM), tmp_path)
    source = model.cri_perceptual.sources[1]
    before = copy.deepcopy(model.net_g.state_dict())
    for step, (given, _) in enumerate(zip(batches(3), train(model, batches(3)), strict=True), 1):
        first, second = calls[-2:]
        assert len(calls) == 2 * step
        assert torch.equal(first.lr, given["lq"])
        assert torch.equal(second.lr, given["lq"])
        assert torch.equal(second.target, given["gt"])
        assert not torch.equal(first.sr, second.sr)
        # The copy is of the weights, not of those that SAM has moved away for its second look.
        assert all(torch.equal(tensor, before[name]) for name, tensor in source.network.state_dict().items())
        before = copy.deepcopy(model.net_g.state_dict())


@pytest.mark.parametrize("start", [0, 1000])
def test_eco_is_refused_in_the_first_iteration(start: int, tmp_path: Path) -> None:
    model = build(neosr_options(eco=True, perceptual_opt={**CLP, "start_iter": start}), tmp_path)
    with pytest.raises(ValueError, match=r"`eco` of \[train\] must be off with CLPLoss"):
        next(train(model, batches(1)))


def test_eco_without_the_loss_is_left_alone(tmp_path: Path) -> None:
    options = neosr_options(eco=True, eco_init=0, perceptual_opt=None)
    assert set(next(train(build(options, tmp_path), batches(1)))) == {"l_g_pix", "l_g_total"}


def test_in_autocast_and_channels_last(tmp_path: Path, calls: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    """`use_amp` on the CPU: the network runs in bfloat16, the loss in float32."""
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda device_type, **options: autocast("cpu", **options))
    model = build({**neosr_options(), "use_amp": True, "bfloat16": True}, tmp_path)
    for given, log in zip(batches(3), train(model, batches(3)), strict=True):
        assert model.output.dtype == torch.bfloat16
        expected = reference()(model.output.detach().float(), given["gt"], given["lq"])
        assert log["l_g_percep"] == pytest.approx(expected.item(), rel=1e-4)
    before = copy.deepcopy(model.net_g.state_dict())
    next(train(model, batches(1)))
    assert not any(torch.equal(tensor, before[name]) for name, tensor in model.net_g.state_dict().items())


def test_auto_weight_keeps_the_share(tmp_path: Path) -> None:
    perceptual = {**CLP, "auto_weight": 0.1, "loss_weight": 100.0}
    model = build(neosr_options(perceptual_opt=perceptual, **SCHEDULE_FREE), tmp_path)
    log = list(train(model, batches(2)))[-1]
    assert 0 < log["clp_weight"] < 100


def test_a_loss_nobody_built_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from neosr.utils import get_root_logger

    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), "warning", said.append)
    list(train(build(neosr_options(perceptual_opt=None, percep_opt=CLP), tmp_path), batches(2)))
    assert [text for text in said if "clp_loss" in text and "percep_opt" in text] == said
    assert len(said) == 1
