"""Layers in TensorBoard, totals in the log line, warnings once: in real runs."""

from pathlib import Path

import pytest

from clp_basicsr.diagnostics import LAYER
from hosts.options import PERCEPTUAL, train_options
from hosts.records import CLP_KEYS, log_entries, log_text, scalars
from hosts.runs import train


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


def test_images_normalised_to_minus_one(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, total_iter=2)
    options["datasets"]["train"] |= {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (line,) = [line for line in warned(train(tmp_path, options)) if "expects [0, 1]" in line]
    assert "range_norm: true" in line


@pytest.mark.parametrize("loss_weight", [1e-3])
def test_a_healthy_run_is_silent(loss_weight: float, pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, perceptual={**PERCEPTUAL, "loss_weight": loss_weight}, total_iter=3)
    assert warned(train(tmp_path, options)) == []
