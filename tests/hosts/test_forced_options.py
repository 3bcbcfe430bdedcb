"""``--force_yml``: BasicSR's own reading of it is the oracle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from basicsr.utils.options import parse_options
from fuzzing import examples
from hypothesis import given
from hypothesis import strategies as st

from clp_basicsr.cli import main
from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.options.file import read_option_file
from clp_basicsr.hosts.options.flags import read_flags
from clp_basicsr.hosts.options.forced import with_forced
from hosts.options import PERCEPTUAL

OPTIONS: dict[str, Any] = {
    "name": "x",
    "model_type": "SRModel",
    "num_gpu": 0,
    "manual_seed": 1,
    "datasets": {"train": {}},
    "path": {},
    "logger": {},
    "train": {"perceptual_opt": PERCEPTUAL, "total_iter": 3, "scheduler": {"type": "MultiStepLR", "milestones": [1]}},
}
KEYS = ["train", "total_iter", "perceptual_opt", "scheduler", "milestones", "loss_weight", "new", " train "]
VALUES = ["7", "0.5", "!!float 1e-3", "~", "None", "true", "False", "[1, 2]", "[1,", "vgg", "1e-3", "", " x ", "a=b"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # what is not refused begins to train
    path = tmp_path / "options.yml"
    path.write_text(yaml.safe_dump(OPTIONS))
    return path


def of_basicsr(file: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any] | None:
    """Return what BasicSR reads, but for what it adds itself; None if it fails."""
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    try:
        options, _ = parse_options(str(file.parent))
    except Exception:
        return None
    return _given(options)


def of_ours(file: Path, flags: list[str]) -> dict[str, Any] | None:
    """Return the same of `with_forced`."""
    try:
        return _given(with_forced(file, read_option_file(file), read_flags(flags).force_yml))
    except OptionFileError:
        return None


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in _OWN}


_OWN = ("path", "datasets", "dist", "rank", "world_size", "auto_resume", "is_train")

entries = st.builds(
    lambda keys, value: f"{':'.join(keys)}={value}",
    st.lists(st.sampled_from(KEYS), min_size=1, max_size=3),
    st.sampled_from(VALUES),
)


@given(given=st.lists(entries | st.sampled_from(["train", ""]), min_size=1, max_size=3))
@examples(300)
def test_the_options_are_those_that_basicsr_reads(given: list[str], file: Path) -> None:
    flags = ["-opt", str(file), "--force_yml", *given, "--auto_resume"]
    with pytest.MonkeyPatch.context() as patch:
        theirs = of_basicsr(file, flags, patch)
    assert of_ours(file, flags) == theirs


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("train:perceptual_opt:type=CLPLos", "Did you mean 'CLPLoss'?"),
        ("train:perceptul_opt:loss_weight=1", "below `train` there is no block `perceptul_opt`"),
        ("train:perceptul_opt:loss_weight=1", "Did you mean 'perceptual_opt'?"),
        ("trian:total_iter=1", "at the top there is no block `trian`"),
        ("train:total_iter:x=1", "there is no block `total_iter`"),
        ("train:total_iter", "must be followed by KEY:KEY=VALUE, but got 'train:total_iter'"),
        ("train:scheduler:milestones=[1,", "must be followed by a value as in YAML"),
        ("num_gpu=~", "but has no `num_gpu`"),
    ],
)
def test_what_the_person_reads(entry: str, said: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-opt", str(file), "--force_yml", entry]) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed
