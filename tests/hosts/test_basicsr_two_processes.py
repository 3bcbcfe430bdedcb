"""Two processes with half a batch each do what one does with the whole batch."""

from pathlib import Path
from typing import Any

import pytest
import torch

import clp_basicsr
from hosts import two_processes
from hosts.options import PERCEPTUAL
from hosts.records import CLP_KEYS
from hosts.runs import isolated, torchrun
from hosts.two_processes import MARGINS, build, joint_batch, share, step

Results = list[dict[str | float, dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each of two gloo processes got out of its step."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(str(Path(two_processes.__file__)), str(folder), folder=folder)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("margin", MARGINS)
def test_gradient_is_that_of_the_joint_batch(margin: str | float, ranks: Results, tmp_path: Path) -> None:
    with isolated(tmp_path):
        joint = step(build(margin), joint_batch())
    for rank in ranks:
        torch.testing.assert_close(rank[margin]["gradients"], joint["gradients"], rtol=1e-6, atol=1e-12)
    assert all(gradient.abs().max() > 1e-6 for gradient in joint["gradients"].values())


@pytest.mark.parametrize("margin", MARGINS)
def test_log_is_the_mean_over_processes(margin: str | float, ranks: Results) -> None:
    settings: dict[str, Any] = {key: value for key, value in PERCEPTUAL.items() if key != "type"}
    core = clp_basicsr.CLPLoss(**{**settings, "margin": margin, "loss_weight": 1.0}).double()
    alone = []
    for rank, results in enumerate(ranks):
        batch = share(joint_batch(), rank)
        value = core(results[margin]["output"], batch["gt"], batch["lq"])
        assert core.summary is not None
        alone.append({"l_percep": value, **{f"clp_{key}": v for key, v in core.summary._asdict().items()}})
    mean = {key: (alone[0][key] + alone[1][key]).item() / 2 for key in alone[0]}

    logged = ranks[0][margin]["log"]
    assert {key: logged[key] for key in mean} == pytest.approx(mean, rel=1e-9)
    assert alone[0]["clp_pull"] != alone[1]["clp_pull"]  # each process saw a batch of its own


@pytest.mark.parametrize("margin", MARGINS)
def test_every_process_logs_the_same_keys_in_one_reduce(margin: str | float, ranks: Results) -> None:
    first, second = (results[margin] for results in ranks)
    assert list(first["log"]) == list(second["log"])
    assert set(first["log"]) == {"l_pix", "l_percep", *CLP_KEYS}
    assert first["collectives"] == second["collectives"] == {"reduce": 1}
