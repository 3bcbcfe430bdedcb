"""The launcher around BasicSR's pipelines: what it passes on, where it works, what it puts back."""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import basicsr.test
import basicsr.train
import pytest
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import dist_util

import clp_basicsr.test
import clp_basicsr.train
from hosts.options import PERCEPTUAL, train_options, write
from hosts.records import log_entries, log_text
from hosts.runs import train

COMMANDS = {"train": clp_basicsr.train.main, "test": clp_basicsr.test.main}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    """Stand in for both pipelines; the command lines and roots they were started with."""
    seen: list[tuple[list[str], str]] = []

    def pipeline(root_path: str) -> None:
        seen.append((sys.argv[1:], root_path))

    monkeypatch.setattr(basicsr.train, "train_pipeline", pipeline)
    monkeypatch.setattr(basicsr.test, "test_pipeline", pipeline)
    return seen


@pytest.fixture
def option_file(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file's name, relative to the working directory it lies in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    return write(train_options(pairs) | {"val": {"val_freq": 100, "save_img": False}}, tmp_path).name


def substituted() -> list[Any]:
    return [
        basicsr.train.create_train_val_dataloader,
        basicsr.train.load_resume_state,
        basicsr.train.train_pipeline,
        BaseModel.model_to_device,
        BaseModel.save_network,
        BaseModel.save_training_state,
        torch.save,
        dist_util._init_dist_pytorch,
        sys.argv,
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_option_file(command: str, started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"options/no_such_file\.yml"):
        COMMANDS[command](["-opt", "options/no_such_file.yml"])
    assert not started
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flags", [[], ["--auto_resume", "--force_yml", "train:total_iter=3", "name=other"]])
def test_flags_and_root(command: str, flags: list[str], started: list[Any], option_file: str) -> None:
    COMMANDS[command](["-opt", option_file, *flags])
    assert started == [(["-opt", option_file, *flags], os.getcwd())]


@pytest.mark.parametrize("main", COMMANDS.values(), ids=COMMANDS)
def test_the_process_own_command_line(
    main: Callable[[], None], started: list[Any], option_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", option_file, "--debug"])
    main()
    assert started[0][0] == ["-opt", option_file, "--debug"]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], ["--launcher", "pytorch"]),
        (["--auto_resume"], ["--launcher", "pytorch"]),
        (["--launcher", "pytorch"], []),
        (["--launcher", "none"], []),
        (["--launcher=none"], []),
        (["--launch", "none"], []),
        (["--la=none"], []),
    ],
)
def test_under_torchrun(
    given: list[str], added: list[str], started: list[Any], option_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    clp_basicsr.train.main(["-opt", option_file, *given])
    assert started[0][0] == ["-opt", option_file, *given, *added]


def test_force_yml_in_a_run(pairs: Path, tmp_path: Path) -> None:
    experiment = train(tmp_path, train_options(pairs), "--force_yml", "train:total_iter=1", "manual_seed=7")
    assert set(log_entries(experiment)) == {1}
    assert "manual_seed: 7" in log_text(experiment)


def test_everything_lands_in_the_working_directory(pairs: Path, tmp_path: Path) -> None:
    site_packages = Path(basicsr.__file__).parents[1]
    before = set(os.listdir(site_packages))
    train(tmp_path, train_options(pairs, total_iter=1))
    assert {path.name for path in tmp_path.iterdir()} == {"options.yml", "experiments", "tb_logger"}
    assert set(os.listdir(site_packages)) == before


@pytest.mark.parametrize("fails", [False, True])
def test_basicsr_is_put_back_after_a_run(fails: bool, pairs: Path, tmp_path: Path) -> None:
    before = substituted()
    perceptual = {**PERCEPTUAL, "criterion": "none such"} if fails else PERCEPTUAL
    options = train_options(pairs, perceptual=perceptual, total_iter=1)
    if fails:
        with pytest.raises(ValueError, match="none such"):
            train(tmp_path, options)
    else:
        train(tmp_path, options)
    assert substituted() == before


@pytest.mark.parametrize("gpu", [False, True])
def test_with_a_gpu_process_group_and_ddp_are_basicsrs_own(
    gpu: bool, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nccl and the choice of the device stay BasicSR's; only the training state is read to the CPU."""
    own = (dist_util._init_dist_pytorch, BaseModel.model_to_device)
    during: list[tuple[Callable[..., Any], ...]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(
        basicsr.train,
        "train_pipeline",
        lambda root_path: during.append((dist_util._init_dist_pytorch, BaseModel.model_to_device)),
    )
    clp_basicsr.train.main(["-opt", str(write(train_options(pairs), tmp_path))])
    assert [each is mine for each, mine in zip(during[0], own)] == [gpu, gpu]


@pytest.mark.parametrize("fails", [False, True])
def test_process_group_after_a_run(fails: bool, option_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error it is left alone: with nccl, destroying it waits for processes that wait for this one."""

    def pipeline(root_path: str) -> None:
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        if fails:
            raise ValueError("an image that cannot be read")

    monkeypatch.setattr(basicsr.train, "train_pipeline", pipeline)
    with pytest.raises(ValueError, match="cannot be read") if fails else nullcontext():
        clp_basicsr.train.main(["-opt", option_file])
    assert torch.distributed.is_initialized() == fails
    if fails:
        torch.distributed.destroy_process_group()


def test_slurm_without_a_gpu(option_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.multiprocessing, "set_start_method", lambda method: None)
    with pytest.raises(RuntimeError, match="must be 'pytorch' where there is no GPU, but got 'slurm'"):
        clp_basicsr.train.main(["-opt", option_file, "--launcher", "slurm"])
