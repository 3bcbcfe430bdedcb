"""The command line: what it refuses, and how it says so."""

from __future__ import annotations

import errno
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError

import pytest

from clp_basicsr.cli import _COMMANDS, main

needs_basicsr = pytest.mark.skipif(importlib.util.find_spec("basicsr") is None, reason="BasicSR is not installed")


def test_missing_option_file_is_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-opt", "no/such.yml"]) == 1
    error = capsys.readouterr().err
    assert "no/such.yml" in error
    assert "-opt" in error
    assert "Traceback" not in error


@needs_basicsr
def test_unknown_network_of_the_demo_names_the_nearest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--model", "vg19"]) == 1
    assert "Did you mean 'vgg19'?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "a refused demo leaves nothing behind"


@needs_basicsr
def test_missing_demo_extra_is_answered_with_the_pip_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    assert main(["demo"]) == 1
    error = capsys.readouterr().err
    assert "pip install '.[demo]'" in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("iterations", ["0", "-3", "many"])
def test_demo_length_must_be_positive(iterations: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--iterations", iterations])
    assert "--iterations" in capsys.readouterr().err


@needs_basicsr
@pytest.mark.parametrize("command", ["train", "test"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_basicsrs_flags_and_more(command: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    from basicsr.utils import options

    with pytest.raises(SystemExit) as ended:
        main([command, flag])
    printed = capsys.readouterr().out
    known = re.findall(r"add_argument\(\s*'(-+\w+)'", inspect.getsource(options.parse_options))
    assert ended.value.code == 0
    assert len(known) == 6
    assert all(each in printed for each in [*known, "--import PACKAGE", "realesrgan"])
    assert ("_archived_" in printed) == (command == "train")


def test_unknown_command_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["trian"])
    assert "train" in capsys.readouterr().err


def test_a_file_that_may_not_be_written_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_options: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), "plot.png")

    monkeypatch.setitem(_COMMANDS, "plot", refused)
    assert main(["plot", "run"]) == 1
    assert capsys.readouterr().err == "clp-basicsr plot: 'plot.png' cannot be read or written: Read-only file system.\n"


def test_errors_of_other_makers_keep_their_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_options: object) -> None:
        raise HTTPError("https://there", 403, "Forbidden", Message(), None)

    monkeypatch.setitem(_COMMANDS, "plot", refused)
    with pytest.raises(HTTPError, match="Forbidden"):
        main(["plot", "run"])


@needs_basicsr
def test_errors_while_training_keep_their_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clp_basicsr.hosts import basicsr_launch

    def broken(_arguments: list[str]) -> None:
        raise ValueError("deep inside")

    monkeypatch.setattr(basicsr_launch, "train", broken)
    with pytest.raises(ValueError, match="deep inside"):
        main(["train", "-opt", "x.yml"])


def test_a_terminal_that_cannot_show_a_character_shows_its_number(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "clp_basicsr.cli", "inspect", "--gt", "猫….png", "--lr", "b.png"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=200)
    assert run.returncode == 1
    assert b"'\\u732b\\u2026.png'" in run.stderr
    assert b"Traceback" not in run.stderr
