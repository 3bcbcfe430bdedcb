"""GPUs: ``CLP_TEST_GPU=1 pytest tests/hosts/test_gpu.py``.

With ``-o addopts= -p no:skipping`` the same runs on the CPU and with gloo, where there is no GPU. A GPU rounds
convolutions more coarsely than a CPU (TF32) and not the same every time: the numbers agree to some percent.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from hosts.options import Options, joint_options
from hosts.records import CLP_KEYS, log_entries, log_text, reduced_scalars
from hosts.runs import launch, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or CLP_TEST_GPU=1 is not set")

PROCESSES = torch.cuda.device_count() or 2


def in_one_process(crops: Path, folder: Path, together: int, **changes: Any) -> Path:
    """Train two iterations and, after a resume, two more."""

    def options(total_iter: int) -> Options:
        return {**joint_options(crops, 1, together=together, total_iter=total_iter), **changes}

    train(folder, options(2))
    return train(folder, options(4), "--auto_resume")


def assert_went_on(experiment: Path, expected: Path) -> None:
    """Check that it resumed at iteration 2, and logged in all four what ``expected`` did."""
    assert "Start training from epoch: 0, iter: 2" in log_text(experiment)
    entries = log_entries(experiment)
    assert set(entries) == {3, 4}
    assert all(set(values) == {"l_pix", "l_percep", *CLP_KEYS} for values in entries.values())
    logged, wanted = reduced_scalars(experiment), reduced_scalars(expected)
    assert set(logged) == set(wanted) >= {1, 2, 3, 4}
    for iteration, values in logged.items():
        assert values == pytest.approx(wanted[iteration], rel=0.05, abs=5e-3), iteration


def test_a_gpu_trains_and_resumes_as_the_cpu_does(crops: Path, tmp_path: Path) -> None:
    on_gpu = in_one_process(crops, tmp_path / "gpu", together=1)
    assert_went_on(on_gpu, in_one_process(crops, tmp_path / "cpu", together=1, num_gpu=0))


def test_torchrun_with_every_gpu(crops: Path, tmp_path: Path) -> None:
    """One process a GPU, with nccl, as one process with the joint batch."""
    for total_iter, flags in ((2, ()), (4, ("--auto_resume",))):
        options = joint_options(crops, PROCESSES, together=PROCESSES, total_iter=total_iter)
        launch("clp_basicsr.train", options, tmp_path / "all", *flags, processes=PROCESSES)
    experiment = tmp_path / "all" / "experiments" / "tiny"
    assert f"World size (gpu number): {PROCESSES}" in log_text(experiment)
    assert_went_on(experiment, in_one_process(crops, tmp_path / "one", together=PROCESSES))
