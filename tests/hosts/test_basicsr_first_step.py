"""What cannot work is said in the first iteration, however late the loss would have its turn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from basicsr.models import build_model
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger

from hosts.options import PERCEPTUAL, SCALE, Options, train_options
from hosts.records import CLP_KEYS, Records
from hosts.runs import isolated

NEVER = {"net_d_init_iters": 100}


def build(folder: Path, options: Options) -> Any:
    with isolated(folder):
        return build_model(options | {"is_train": True, "dist": False, "rank": 0, "world_size": 1})


def step(model: Any, size: int = 32, iteration: int = 1) -> dict[str, float]:
    gt = torch.rand(1, 3, size, size)
    model.feed_data({"gt": gt, "lq": torch.nn.functional.avg_pool2d(gt, SCALE)})
    model.optimize_parameters(iteration)
    log: dict[str, float] = model.get_current_log()
    return log


@pytest.mark.parametrize("model_type", ["SRGANModel", "ESRGANModel"])
def test_images_too_small_for_the_network_during_the_warm_up(model_type: str, tmp_path: Path) -> None:
    deep = PERCEPTUAL | {"layer_weights": {"relu5_4": 1.0}}
    model = build(tmp_path, train_options(tmp_path, model_type=model_type, perceptual=deep, **NEVER))
    with pytest.raises(ValueError, match="relu5_4"):
        step(model, size=8)


def test_a_rehearsal_leaves_no_trace(tmp_path: Path, records: Records) -> None:
    model = build(tmp_path, train_options(tmp_path, model_type="ESRGANModel", **NEVER))
    logs = [step(model, iteration=iteration) for iteration in (1, 2, 3)]
    assert len(records.calls) == 1  # the rehearsal, once
    for log in logs:
        assert not CLP_KEYS & set(log)
        assert "l_g_percep" not in log
    assert model.cri_perceptual.summary is None


def test_a_loss_that_had_its_turn_is_not_called_again(tmp_path: Path, records: Records) -> None:
    model = build(tmp_path, train_options(tmp_path))
    step(model)
    assert len(records.calls) == 1


class Late(SRModel):  # type: ignore[misc]
    """Somebody's model that keeps LR elsewhere, and calls the loss from the third iteration on."""

    in_bytes = False

    def feed_data(self, data: dict[str, torch.Tensor]) -> None:
        self.small, self.gt = data["lq"], data["gt"]
        if self.in_bytes:
            self.lq = (255 * data["lq"]).byte()

    def optimize_parameters(self, current_iter: int) -> None:
        self.optimizer_g.zero_grad()
        self.output = self.net_g(self.small)
        losses = {"l_pix": self.cri_pix(self.output, self.gt)}
        if current_iter > 2:
            with self.cri_perceptual.negatives(self.small):
                losses["l_percep"], _ = self.cri_perceptual(self.output, self.gt)
        sum(losses.values()).backward()
        self.optimizer_g.step()
        self.log_dict = self.reduce_loss_dict(losses)


@pytest.mark.parametrize(("in_bytes", "said"), [(False, "must hold the LR batch in `lq`"), (True, "torch.uint8")])
def test_a_step_of_somebody_elses_is_no_reason_to_end_the_run(
    in_bytes: bool, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Late, "in_bytes", in_bytes)
    with isolated(tmp_path):
        get_root_logger()
        model = Late(train_options(tmp_path) | {"is_train": True, "dist": False, "rank": 0, "world_size": 1})
        logs = [step(model, iteration=iteration) for iteration in (1, 2, 3)]
    assert [set(log) >= CLP_KEYS for log in logs] == [False, False, True]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "has not called its CLPLoss yet" in line]
    assert said in line


class Forgetful(SRModel):  # type: ignore[misc]
    """A model that builds no perceptual loss, as BasicSR's StyleGAN2Model does not."""

    def init_training_settings(self) -> None:
        asked = self.opt["train"].pop("perceptual_opt")
        super().init_training_settings()
        self.opt["train"]["perceptual_opt"] = asked


def test_a_model_that_does_not_build_the_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with isolated(tmp_path):
        get_root_logger()  # it prints to the stderr it finds now
        model = Forgetful(train_options(tmp_path) | {"is_train": True, "dist": False, "rank": 0, "world_size": 1})
        step(model)
        step(model)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "trains without it" in line]
    assert len(warnings) == 1
    assert "Forgetful has not built the CLPLoss of `train: perceptual_opt`" in warnings[0]


def said_in(options: Options, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with isolated(folder):
        get_root_logger()
        step(build_model(options | {"is_train": True, "dist": False, "rank": 0, "world_size": 1}))
    return [line for line in capsys.readouterr().err.splitlines() if "trains without" in line]


def test_a_loss_of_another_name_is_not_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = train_options(tmp_path)
    options["train"]["perceptual_loss"] = options["train"].pop("perceptual_opt")
    (line,) = said_in(options, tmp_path, capsys)
    assert "SRModel has not built the CLPLoss of `train: perceptual_loss`" in line
    assert "rename the block" in line


def test_a_second_loss_is_not_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = said_in(train_options(tmp_path, style_opt=dict(PERCEPTUAL)), tmp_path, capsys)
    assert "SRModel has built 1 of the 2 losses that stand as ['perceptual_opt', 'style_opt'] below `train`" in line


@pytest.mark.parametrize(("start_iter", "total_iter", "lines"), [(4, 4, 1), (3, 4, 0), (4, 4.0, 1)])
def test_a_loss_that_never_has_its_turn(
    start_iter: int, total_iter: float, lines: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = train_options(tmp_path, perceptual={**PERCEPTUAL, "start_iter": start_iter}, total_iter=total_iter)
    said = said_in(options, tmp_path, capsys)
    assert len(said) == lines
    assert all("`start_iter: 4`, but the run has `total_iter: 4`" in line for line in said)
