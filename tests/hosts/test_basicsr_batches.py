"""What the loss sees in a run, and that the log says what the loss computed."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from basicsr.losses import build_loss

from clp_basicsr import CLPLoss
from hosts.options import PERCEPTUAL, SCALE, train_options, with_validation
from hosts.records import CLP_KEYS, Records, log_entries, scalars
from hosts.runs import isolated, train


@pytest.fixture
def core() -> CLPLoss:
    """The loss of the option files, without a host."""
    settings: dict[str, Any] = {key: value for key, value in PERCEPTUAL.items() if key != "type"}
    return CLPLoss(**settings)


def test_log_holds_the_core_loss(pairs: Path, tmp_path: Path, records: Records, core: CLPLoss) -> None:
    experiment = train(tmp_path, train_options(pairs, total_iter=3))
    logged, sent = log_entries(experiment), scalars(experiment)

    calls = list(records.calls)
    for iteration, call in enumerate(calls, start=1):
        value = core(call.sr, call.target, call.lr).item()
        assert core.summary is not None
        expected = {f"clp_{name}": number.item() for name, number in core.summary._asdict().items()}
        assert sent[iteration]["losses/l_percep"] == pytest.approx(value, rel=1e-6)
        assert logged[iteration]["l_percep"] == pytest.approx(value, rel=1e-3)
        assert {key: sent[iteration][key] for key in expected} == pytest.approx(expected, rel=1e-6)
    assert len({values["l_percep"] for values in logged.values()}) == 3


def test_registered_class_returns_a_pair(core: CLPLoss, tmp_path: Path) -> None:
    gt = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    lr, sr = F.avg_pool2d(gt, SCALE), (gt * 0.9).requires_grad_()
    with isolated(tmp_path):
        registered = build_loss(PERCEPTUAL)
    value, style = registered(sr, gt, lr)

    assert style is None
    assert value.shape == ()
    assert value.requires_grad
    assert torch.equal(value, core(sr, gt, lr))


@pytest.mark.parametrize("model_type", ["SRGANModel", "ESRGANModel"])
def test_nothing_stale_while_the_gan_leaves_the_loss_out(model_type: str, pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, model_type=model_type, total_iter=7, net_d_init_iters=2, net_d_iters=2)
    experiment = train(tmp_path, options)
    logged, sent = log_entries(experiment), scalars(experiment)

    called = {4, 6}  # above net_d_init_iters and a multiple of net_d_iters
    assert set(logged) == set(range(1, 8))
    for entries in (logged, sent):
        assert {iteration for iteration, values in entries.items() if set(values) >= CLP_KEYS} == called
        assert {iteration for iteration, values in entries.items() if CLP_KEYS & set(values)} == called
    assert {iteration for iteration, values in logged.items() if "l_g_percep" in values} == called


@pytest.mark.parametrize("model_type", ["SRModel", "SwinIRModel", "ESRGANModel"])
def test_ema_and_validation_between_iterations(model_type: str, pairs: Path, tmp_path: Path, records: Records) -> None:
    options = train_options(pairs, model_type=model_type, total_iter=4, ema_decay=0.9)
    experiment = train(tmp_path, with_validation(options, pairs, every=2))
    logged, sent = log_entries(experiment), scalars(experiment)

    # 4 training batches, and 4 images in each of three validations: after 2, after 4, at the end
    assert (len(records.calls), len(records.fed)) == (4, 4 + 3 * 4)
    assert all(set(values) >= CLP_KEYS for values in logged.values())
    assert set(logged) == {1, 2, 3, 4}
    assert {iteration for iteration, values in sent.items() if "metrics/held_out/psnr" in values} == {2, 4, 5}
    # iteration 3, right after a validation that deleted `lq`, saw its own batch
    assert torch.equal(records.calls[2].lr, records.fed[2 + 4]["lq"])
    saved = torch.load(experiment / "models" / "net_g_4.pth", weights_only=True)
    assert set(saved) == {"params", "params_ema"}
    assert set(saved["params"]) == set(saved["params_ema"])
