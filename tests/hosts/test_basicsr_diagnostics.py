"""Layers in TensorBoard, totals in the log line, warnings once: in real runs."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from basicsr.models import build_model
from basicsr.utils.logger import MessageLogger
from core.oracles import upsampled

from clp_basicsr.diagnostics import LAYER
from hosts.options import PERCEPTUAL, SCALE, train_options
from hosts.records import CLP_KEYS, log_entries, log_text, scalars
from hosts.runs import isolated, train


def test_layers_go_to_tensorboard_and_totals_to_the_line(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, total_iter=4)
    options["logger"]["print_freq"] = 2
    experiment = train(tmp_path, options)
    logged, sent = log_entries(experiment), scalars(experiment)

    layers = {f"clp/{layer}/{name}" for layer in PERCEPTUAL["layer_weights"] for name in LAYER}
    for iteration in (2, 4):
        assert layers | {"clp/gradient_ratio", "clp/target_min", "clp/target_max"} <= set(sent[iteration])
        assert set(logged[iteration]) >= CLP_KEYS
        assert "clp/" not in log_text(experiment)
    assert not layers & {*sent.get(1, {}), *sent.get(3, {})}


class Curves(dict[str, list[float]]):
    """A TensorBoard writer."""

    def add_scalar(self, tag: str, value: float, iteration: int) -> None:
        self.setdefault(tag, []).append(value)


def test_each_of_two_models_has_curves_of_its_own(tmp_path: Path) -> None:
    """A teacher and its student, each with a logger, in turn; beside them one that keeps no numbers to be logged."""
    options = train_options(tmp_path, total_iter=4) | {"is_train": True, "dist": False, "rank": 0, "world_size": 1}
    options["logger"]["print_freq"] = 2
    gt, brightest = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), (1.0, 0.5)
    with isolated(tmp_path):
        models, curves = [build_model(copy.deepcopy(options)) for _ in brightest], [Curves() for _ in brightest]
        silent = build_model(copy.deepcopy(options))
        silent.cri_perceptual((0.1 * gt).requires_grad_(), 0.2 * gt, F.avg_pool2d(gt, SCALE))
        loggers = [MessageLogger(options, 0, each) for each in curves]
        for iteration in range(1, 5):
            for model, scale in zip(models, brightest):
                model.feed_data({"gt": scale * gt, "lq": F.avg_pool2d(scale * gt, SCALE)})
                model.optimize_parameters(iteration)
            if iteration % 2 == 0:
                for model, logger in zip(models, loggers):
                    line = {"epoch": 0, "iter": iteration, "lrs": [0.1], "time": 1.0, "data_time": 1.0}
                    logger({**line, **model.get_current_log()})
    for each, scale in zip(curves, brightest):
        assert each["clp/target_max"] == pytest.approx([scale, scale], rel=0.01)


def test_a_line_that_names_no_model_is_everybodys(tmp_path: Path) -> None:
    """Of a loop of one's own, with numbers of its own."""
    options = train_options(tmp_path, total_iter=4) | {"is_train": True, "dist": False, "rank": 0, "world_size": 1}
    gt, curves = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), Curves()
    with isolated(tmp_path):
        model = build_model(copy.deepcopy(options))
        model.feed_data({"gt": gt, "lq": F.avg_pool2d(gt, SCALE)})
        model.optimize_parameters(1)
        line = {"epoch": 0, "iter": 1, "lrs": [0.1], "time": 1.0, "data_time": 1.0, "mine": 0.5}
        MessageLogger(options, 0, curves)(line)
    assert "clp/target_max" in curves


def test_diagnostics_can_be_left_out(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, perceptual={**PERCEPTUAL, "diagnostics": False}, total_iter=2)
    experiment = train(tmp_path, options)
    assert not any(tag.startswith("clp/") for values in scalars(experiment).values() for tag in values)


def warned(experiment: Path) -> list[str]:
    return [line for line in log_text(experiment).splitlines() if "WARNING: CLPLoss:" in line]


def test_the_gradient_warning_comes_once_with_its_cure(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, perceptual={**PERCEPTUAL, "loss_weight": 1.0}, total_iter=4)
    (line,) = [line for line in warned(train(tmp_path, options)) if "gradient at the SR image" in line]
    assert "auto_weight: 0.1" in line


@pytest.mark.parametrize(("loss_weight", "auto_weight"), [(1e-2, None), (1.0, "10")])
def test_beside_a_gan_loss_a_small_pixel_weight_is_on_purpose(
    loss_weight: float, auto_weight: str | None, pairs: Path, tmp_path: Path
) -> None:
    pixel_opt = {"type": "L1Loss", "loss_weight": 1e-2, "reduction": "mean"}
    perceptual = {**PERCEPTUAL, "loss_weight": loss_weight}
    options = train_options(pairs, model_type="ESRGANModel", perceptual=perceptual, pixel_opt=pixel_opt, total_iter=3)
    experiment = train(tmp_path, options)
    assert scalars(experiment)[3]["clp/gradient_ratio"] > 10
    lines = [line for line in warned(experiment) if "gradient at the SR image" in line]
    assert len(lines) == (auto_weight is not None)
    assert all(
        f"the pixel loss's at weight 1: it paints artefacts. Set `auto_weight: {auto_weight}`" in x for x in lines
    )


def test_beside_a_gan_loss_a_large_pixel_weight_is_not_taken_out(pairs: Path, tmp_path: Path) -> None:
    """What the network feels is compared: the warning is no reason to lower a loss that is weak beside it."""
    pixel_opt = {"type": "L1Loss", "loss_weight": 100.0, "reduction": "mean"}
    perceptual = {**PERCEPTUAL, "loss_weight": 1.0}
    options = train_options(pairs, model_type="ESRGANModel", perceptual=perceptual, pixel_opt=pixel_opt, total_iter=2)
    experiment = train(tmp_path, options)
    assert 0.1 < scalars(experiment)[2]["clp/gradient_ratio"] < 10  # at weight 1 a hundred times that
    assert not [line for line in warned(experiment) if "gradient at the SR image" in line]


@pytest.mark.parametrize("negatives", ["lr", "lagged"])
def test_sr_that_equals_its_negative_is_news_but_for_the_networks_own_output(
    negatives: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh copy of the network makes the same of LR as the network itself."""
    options = train_options(tmp_path, perceptual={**PERCEPTUAL, "negatives": negatives})
    options |= {"is_train": True, "dist": False, "rank": 0, "world_size": 1}
    gt = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    lr = F.avg_pool2d(gt, SCALE)
    said: list[str] = []
    with isolated(tmp_path):
        model, logger = build_model(options), MessageLogger(options, 0, Curves())
        monkeypatch.setattr(logger.logger, "warning", said.append)
        sr = upsampled(lr, (32, 32)).requires_grad_() if negatives == "lr" else model.net_g(lr)
        model.cri_perceptual(sr, gt, lr)
        for iteration in (1, 2):
            logger({"epoch": 0, "iter": iteration, "lrs": [0.1], "time": 1.0, "data_time": 1.0})
    assert len([line for line in said if "SR equals the upsampled LR" in line]) == (negatives == "lr")


def test_images_normalised_to_minus_one(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, total_iter=2)
    options["datasets"]["train"] |= {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (line,) = [line for line in warned(train(tmp_path, options)) if "expects [0, 1]" in line]
    assert "range_norm: true" in line


@pytest.mark.parametrize("loss_weight", [1e-3])
def test_a_healthy_run_is_silent(loss_weight: float, pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, perceptual={**PERCEPTUAL, "loss_weight": loss_weight}, total_iter=3)
    assert warned(train(tmp_path, options)) == []


def test_in_debug_mode_where_basicsr_has_no_tensorboard(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, perceptual={**PERCEPTUAL, "loss_weight": 1e-3}, total_iter=2)
    train(tmp_path, options, "--debug")
    assert "clp_pull" in next((tmp_path / "experiments" / "debug_tiny").glob("*.log")).read_text()
