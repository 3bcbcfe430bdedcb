"""Two processes under torchrun train what one does with the joint batch, through BasicSR's whole pipeline.

Its sampler gives process r of two the images r, r + 2, ... of the joint order.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hosts.options import PERCEPTUAL, Options, joint_options
from hosts.recorded_train import Step, recorded, steps_of
from hosts.records import CLP_KEYS, log_entries, log_text, reduced_scalars
from hosts.runs import launch, train

RANKS = (0, 1)


@dataclass
class Run:
    """What a run of all its processes left behind."""

    experiment: Path
    steps: list[list[Step]]
    errors: str = ""


@pytest.fixture(scope="module")
def alone(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One process with the joint batch: four iterations, and four more after a resume."""
    folder = tmp_path_factory.mktemp("alone")
    with recorded() as steps:
        train(folder, joint_options(crops, 1, total_iter=4))
        experiment = train(folder, joint_options(crops, 1, total_iter=8), "--auto_resume")
    return Run(experiment, [steps])


@pytest.fixture(scope="module")
def launched(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two processes with half the batch each, stopped and resumed as the one; the first half is recorded.

    Between the two lies what a run leaves that is killed while it saves.
    """
    folder = tmp_path_factory.mktemp("launched")
    errors = launch("hosts.recorded_train", joint_options(crops, 2, total_iter=4), folder)
    states = folder / "experiments" / "tiny" / "training_states"
    for name in ("5.state", "6.state.unfinished"):
        (states / name).write_bytes((states / "4.state").read_bytes()[:1000])
    errors += launch("clp_basicsr.train", joint_options(crops, 2, total_iter=8), folder, "--auto_resume")
    return Run(folder / "experiments" / "tiny", [steps_of(folder, rank) for rank in RANKS], errors)


@pytest.fixture(scope="module")
def gan_alone(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with recorded() as steps:
        experiment = train(tmp_path_factory.mktemp("gan_alone"), gan_options(crops, 1))
    return Run(experiment, [steps])


@pytest.fixture(scope="module")
def gan_launched(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("gan_launched")
    errors = launch("hosts.recorded_train", gan_options(crops, 2), folder)
    return Run(folder / "experiments" / "tiny", [steps_of(folder, rank) for rank in RANKS], errors)


def gan_options(crops: Path, processes: int) -> Options:
    """A discriminator that begins alone, and a weight that the processes have to agree on."""
    perceptual = {**PERCEPTUAL, "loss_weight": 1.0, "auto_weight": 0.5}
    gan = {"model_type": "ESRGANModel", "net_d_init_iters": 2}
    return joint_options(crops, processes, perceptual=perceptual, ema_decay=0.9, **gan)


def moved(run: Run, start: int, end: int) -> dict[str, Tensor]:
    """Return how far each weight moved: with this optimizer, a constant times the sum of its gradients."""
    before, after = (weights(run, iteration) for iteration in (start, end))
    return {name: after[name] - before[name] for name in after}


def weights(run: Run, iteration: int) -> dict[str, Tensor]:
    loaded: dict[str, Any] = torch.load(run.experiment / "models" / f"net_g_{iteration}.pth", weights_only=True)
    return loaded["params"]


def test_processes_share_the_joint_batches(alone: Run, launched: Run) -> None:
    joint = [step.images for step in alone.steps[0][:4]]
    assert {len(images) for images in joint} == {4}
    for rank in RANKS:
        assert [step.images for step in launched.steps[rank]] == [images[rank::2] for images in joint]
    # in the third and fourth iteration the processes have different images, so that their means differ
    assert all(sorted(images[::2]) != sorted(images[1::2]) for images in joint[2:])


@pytest.mark.parametrize(("start", "end"), [(2, 3), (1, 4), (4, 8)], ids=["one step", "three", "after the resume"])
def test_weights_move_as_with_the_joint_batch(start: int, end: int, alone: Run, launched: Run) -> None:
    expected = moved(alone, start, end)
    torch.testing.assert_close(moved(launched, start, end), expected, rtol=1e-3, atol=1e-7)
    assert all(tensor.abs().max() > 1e-4 for tensor in expected.values())


def test_training_states_are_those_of_one_process(alone: Run, launched: Run) -> None:
    for iteration in (4, 8):
        one, two = (
            torch.load(run.experiment / "training_states" / f"{iteration}.state", weights_only=True)
            for run in (alone, launched)
        )
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-7)


def test_rank_0_logs_what_one_process_logs(alone: Run, launched: Run) -> None:
    one, two = reduced_scalars(alone.experiment), reduced_scalars(launched.experiment)
    for iteration in range(1, 9):
        assert set(two[iteration]) >= {"losses/l_pix", "losses/l_percep", *CLP_KEYS}
        assert two[iteration] == pytest.approx(one[iteration], rel=1e-4)
    assert all("metrics/held_out/psnr" in two[iteration] for iteration in (4, 8))


def test_the_resumed_run_went_on(launched: Run) -> None:
    assert "World size (gpu number): 2" in log_text(launched.experiment)
    assert "Start training from epoch: 1, iter: 4" in log_text(launched.experiment)
    assert set(log_entries(launched.experiment)) == {5, 6, 7, 8}
    assert [folder.name for folder in launched.experiment.parent.iterdir()] == ["tiny"]


def test_all_processes_skipped_the_half_written_state(launched: Run) -> None:
    assert launched.errors.count("The checkpoint of iteration 5 is skipped: ") == len(RANKS)
    assert not list(launched.experiment.glob("*/*.unfinished"))


def test_every_rank_logs_the_same_keys(alone: Run, launched: Run) -> None:
    for steps in zip(alone.steps[0], *launched.steps):
        assert [list(step.log) for step in steps] == [["l_pix", "l_percep", "clp_pull", "clp_push", "clp_active"]] * 3


def test_gan_ranks_leave_the_loss_out_in_the_same_iterations(gan_alone: Run, gan_launched: Run) -> None:
    for iteration, steps in enumerate(zip(gan_alone.steps[0], *gan_launched.steps), start=1):
        keys = [list(step.log) for step in steps]
        assert keys[0] == keys[1] == keys[2]
        of_the_loss = {"l_g_percep", "clp_weight", *CLP_KEYS}
        assert of_the_loss & set(keys[0]) == (of_the_loss if iteration > 2 else set())


def test_gan_logs_what_one_process_logs(gan_alone: Run, gan_launched: Run) -> None:
    one, two = reduced_scalars(gan_alone.experiment), reduced_scalars(gan_launched.experiment)
    for iteration in (3, 4):
        for key in ("losses/l_g_percep", "losses/l_g_pix", "clp_weight", *CLP_KEYS):
            assert two[iteration][key] == pytest.approx(one[iteration][key], rel=1e-4), key


def test_gan_weights_move_as_with_the_joint_batch(gan_alone: Run, gan_launched: Run) -> None:
    """The generator's; the discriminator compares each image with the mean of its own process's batch."""
    assert all(not tensor.any() for tensor in moved(gan_launched, 1, 2).values())
    torch.testing.assert_close(moved(gan_launched, 2, 4), moved(gan_alone, 2, 4), rtol=1e-3, atol=1e-7)
    assert max(tensor.abs().max() for tensor in moved(gan_alone, 2, 4).values()) > 1e-3


def test_nothing_complains(launched: Run, gan_launched: Run) -> None:
    for run in (launched, gan_launched):
        assert "Traceback" not in run.errors
        assert "find_unused_parameters" not in run.errors
