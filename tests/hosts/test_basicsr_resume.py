"""Stopping and going on, without a GPU, where BasicSR's own `load_resume_state` needs one.

BasicSR saves the epoch in which a state was made and starts that epoch again, so after a resume the
order of a shuffled data set differs from an uninterrupted run's, with any loss. With one image of
the size of the crop every batch is the same, and the two must agree to the last bit.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hosts.options import Options, train_options
from hosts.records import CLP_KEYS, log_entries, log_text
from hosts.runs import train


def options(one_pair: Path, total_iter: int) -> Options:
    built = train_options(one_pair, total_iter=total_iter, ema_decay=0.9)
    built["datasets"]["train"] |= {"dataset_enlarge_ratio": 4, "use_hflip": False, "use_rot": False}
    return built


@pytest.fixture(scope="module")
def uninterrupted(one_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("uninterrupted"), options(one_pair, 8))


@pytest.fixture(scope="module")
def stopped(one_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a run of four iterations."""
    folder = tmp_path_factory.mktemp("stopped")
    train(folder, options(one_pair, 4))
    return folder


@pytest.fixture
def resumable(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    return tmp_path


def weights(experiment: Path, name: str = "net_g_8.pth") -> dict[str, dict[str, Tensor]]:
    loaded: dict[str, dict[str, Tensor]] = torch.load(experiment / "models" / name, weights_only=True)
    return loaded


def state(experiment: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(experiment / "training_states" / "8.state", weights_only=True)
    return loaded


def assert_went_on(experiment: Path, uninterrupted: Path) -> None:
    assert "Start training from epoch: 1, iter: 4" in log_text(experiment)
    entries = log_entries(experiment)
    assert set(entries) == {5, 6, 7, 8}
    assert entries == {step: values for step, values in log_entries(uninterrupted).items() if step > 4}
    assert all(set(values) >= CLP_KEYS for values in entries.values())
    for key, expected in weights(uninterrupted).items():
        torch.testing.assert_close(weights(experiment)[key], expected, rtol=0, atol=0)
    for part in ("optimizers", "schedulers"):
        torch.testing.assert_close(state(experiment)[part], state(uninterrupted)[part], rtol=0, atol=0)


def test_auto_resume_ends_as_if_never_stopped(resumable: Path, uninterrupted: Path, one_pair: Path) -> None:
    experiment = train(resumable, options(one_pair, 8), "--auto_resume")
    assert_went_on(experiment, uninterrupted)
    # it went on in the same folder instead of moving that away
    assert [folder.name for folder in experiment.parent.iterdir()] == ["tiny"]


def test_training_changes_the_weights_after_the_resume(uninterrupted: Path) -> None:
    early, late = weights(uninterrupted, "net_g_4.pth"), weights(uninterrupted)
    assert any(not torch.equal(early["params"][name], tensor) for name, tensor in late["params"].items())


def test_resume_state_in_the_option_file(resumable: Path, uninterrupted: Path, one_pair: Path) -> None:
    changed = options(one_pair, 8)
    changed["path"]["resume_state"] = "experiments/tiny/training_states/4.state"
    assert_went_on(train(resumable, changed), uninterrupted)


def test_auto_resume_takes_the_newest_state(resumable: Path, one_pair: Path) -> None:
    train(resumable, options(one_pair, 8), "--auto_resume")
    states = resumable / "experiments" / "tiny" / "training_states"
    shutil.copy(states / "8.state", states / "notes.state")  # no iteration: not one of BasicSR's
    experiment = train(resumable, options(one_pair, 9), "--auto_resume")
    assert "iter: 8" in log_text(experiment)
    assert set(log_entries(experiment)) == {9}


def test_auto_resume_without_a_state_starts_afresh(one_pair: Path, tmp_path: Path) -> None:
    experiment = train(tmp_path, options(one_pair, 1), "--auto_resume")
    assert "Start training from epoch: 0, iter: 0" in log_text(experiment)


def test_auto_weight_and_warm_up_go_on_after_the_resume(one_pair: Path, tmp_path: Path) -> None:
    def scheduled(total_iter: int) -> Options:
        built = options(one_pair, total_iter)
        built["train"]["perceptual_opt"] |= {"auto_weight": 0.1, "loss_weight": 1.0, "start_iter": 2, "warmup_iter": 5}
        return built

    whole = log_entries(train(tmp_path / "whole", scheduled(8)))
    train(tmp_path / "parts", scheduled(4))
    parts = log_entries(train(tmp_path / "parts", scheduled(8), "--auto_resume"))

    assert [iteration for iteration, values in whole.items() if "clp_weight" in values] == [3, 4, 5, 6, 7, 8]
    assert parts == {iteration: values for iteration, values in whole.items() if iteration > 4}
    assert whole[8]["clp_weight"] > whole[3]["clp_weight"] > 0


def test_another_missing_network_keeps_its_own_words(resumable: Path, one_pair: Path) -> None:
    missing = options(one_pair, 8)
    missing["path"] |= {"pretrain_network_g": "elsewhere/models/net_g_4.pth", "ignore_resume_networks": ["network_g"]}
    with pytest.raises(
        FileNotFoundError, match=r"^\[Errno 2\] No such file or directory: 'elsewhere/models/net_g_4.pth'$"
    ):
        train(resumable, missing, "--auto_resume")


def test_another_stage_under_the_same_name(resumable: Path, one_pair: Path) -> None:
    """A GAN after PSNR is the field's recipe; its discriminator has no checkpoint yet."""
    staged = train_options(one_pair, model_type="SRGANModel", total_iter=8)
    staged |= {name: options(one_pair, 8)[name] for name in ("datasets", "network_g")}
    with pytest.raises(FileNotFoundError, match=r"has no `network_d`.* a `name` of its own.*net_g_4\.pth`\."):
        train(resumable, staged, "--auto_resume")
