"""Checkpoints that are whole or not there: killed runs, full disks, failed tries.

Kills at random moments: benchmarks/kill_and_resume.py.
"""

import errno
import io
import os
import re
import signal
import subprocess
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from basicsr.models import base_model
from limits import small_disk, small_files

from clp_basicsr import disk
from clp_basicsr.cli import main
from clp_basicsr.disk import NotSavedError, named_if_the_disk_is_full, room_at
from clp_basicsr.hosts.saving import Saving
from clp_basicsr.whole_files import whole_file
from hosts.options import Options, train_options, with_validation, write
from hosts.records import log_entries
from hosts.runs import isolated, python, train

# Its network takes 0.4 MB, the state of its optimizer 0.8 MB.
WIDE: Options = {"type": "SRVGGNetCompact", "num_feat": 64, "num_conv": 2, "upscale": 4}
_A_NETWORK = 600_000  # bytes: more than one of `WIDE`, less than its state

# Kills the process when 2000 bytes of a file are on the disk.
DIES_WHILE_SAVING = """
import io, os, pathlib, signal

class Dying(io.BufferedWriter):
    def write(self, data):
        if self.tell() + len(data) > 2000:
            super().write(bytes(data)[: 2000 - self.tell()])
            self.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(data)

open_path = pathlib.Path.open

def open_to_die(path, mode="r", *arguments, **keywords):
    if mode == "wb" and path.name.startswith("FILE"):
        return Dying(io.FileIO(path, "w"))
    return open_path(path, mode, *arguments, **keywords)

pathlib.Path.open = open_to_die
"""


def saving_every_iteration(pairs: Path, total_iter: int = 3) -> Options:
    options = train_options(pairs, total_iter=total_iter)
    options["logger"] |= {"save_checkpoint_freq": 1, "use_tb_logger": False}
    return options


def names(experiment: Path) -> set[str]:
    return {path.name for part in ("models", "training_states") for path in (experiment / part).iterdir()}


@pytest.mark.parametrize("file", ["net_g_2.pth", "2.state"])
def test_killed_inside_the_writing_of_a_file(file: str, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text(DIES_WHILE_SAVING.replace("FILE", file))
    options = saving_every_iteration(pairs)
    command = ("-m", "clp_basicsr.train", "--import", "dies", "-opt", str(write(options, tmp_path)))
    assert python(*command, folder=tmp_path).returncode == -signal.SIGKILL
    experiment = tmp_path / "experiments" / "tiny"
    (unfinished,) = experiment.glob("*/*.unfinished")
    assert unfinished.name.startswith(f"{file}.")
    assert unfinished.stat().st_size == 2000
    assert file not in names(experiment)

    assert train(tmp_path, options, "--auto_resume") == experiment
    assert set(log_entries(experiment)) == {2, 3}
    files = {"net_g_latest.pth", *(name for i in (1, 2, 3) for name in (f"net_g_{i}.pth", f"{i}.state"))}
    assert names(experiment) == files


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """BasicSR waits a second after each of its three tries."""
    monkeypatch.setattr(base_model, "time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("limit", ["disk", "file size"])
def test_no_room_for_a_checkpoint(limit: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {**saving_every_iteration(pairs), "network_g": WIDE}
    file = str(write(options, tmp_path))
    with ExitStack() as stack:
        if limit == "disk":
            stack.enter_context(small_disk(tmp_path))
            file = str(write(options, tmp_path))
        else:
            with isolated(tmp_path):
                main(["train", "-opt", file, "--force_yml", "train:total_iter=1"])
        experiment = tmp_path / "experiments" / "tiny"
        with small_files(_A_NETWORK) if limit == "file size" else ExitStack(), isolated(tmp_path):
            capsys.readouterr()
            assert main(["train", "-opt", file, "--auto_resume"]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"clp-basicsr train: '{experiment}/training_states/2.state' could not be saved: ")
        assert ("No space left" if limit == "disk" else "File too large") in said
        assert re.search(r"It takes 8\d\d\.\d kB, and \S+ .B are free there\. Make room", said)
        assert said.endswith("from the last checkpoint, where there is one: the same command with --auto_resume.")
        assert names(experiment) >= {"net_g_1.pth", "1.state", "net_g_2.pth"}
        assert not {name for name in names(experiment) if "2.state" in name}

        if limit == "disk":
            subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path)], check=True)
        with isolated(tmp_path):
            assert main(["train", "-opt", file, "--auto_resume"]) == 0
        assert set(log_entries(experiment)) == {2, 3}


class FailingDisk:
    """Stands for `os.fsync`; fails the first times."""

    def __init__(self, failures: int) -> None:
        self.failures, self.sync = failures, os.fsync

    def __call__(self, descriptor: int) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.sync(descriptor)


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("failures", [2, 3])
def test_basicsrs_three_tries(failures: int, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What BasicSR would ignore after the third ends the run."""
    monkeypatch.setattr(os, "fsync", FailingDisk(failures))
    models = tmp_path / "experiments" / "tiny" / "models"
    if failures == 3:
        with pytest.raises(NotSavedError, match=r"net_g_1\.pth' could not be saved: Input/output error\.$"):
            train(tmp_path, saving_every_iteration(pairs))
        assert not list(models.iterdir())
    else:
        train(tmp_path, saving_every_iteration(pairs))
        assert "params" in torch.load(models / "net_g_1.pth", weights_only=True)


def test_what_cannot_be_saved_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "net_g_latest.pth"
    saving = Saving()
    saving.save({"params": 1}, str(path))
    with pytest.raises(NotSavedError, match=r"net_g_latest\.pth' could not be saved: .*[Pp]ickle"):
        saving.save({"params": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"params": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_that_was_dealt_with_is_not_raised_again(tmp_path: Path) -> None:
    """BasicSR's `save_training_state` is called at the end too, where it has nothing to save."""
    saving = Saving()

    def save() -> None:
        with suppress(NotSavedError):  # as BasicSR after its last try
            saving.save({"params": lambda: None}, tmp_path / "net_g_latest.pth")

    with pytest.raises(NotSavedError, match=r"net_g_latest\.pth' could not be saved"):
        saving.never_ignored(save)()
    saving.never_ignored(lambda: None)()


def test_failed_writing_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    with pytest.raises(TypeError, match="bytes-like"), whole_file(path) as file:
        file.writelines([b"la", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_may_save_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net_g_latest.pth"
    with whole_file(path) as first:
        first.write(b"first")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with whole_file(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "net.pth"
    link.symlink_to(tmp_path / "elsewhere" / "net.pth")
    for content in (b"one", b"two"):
        with whole_file(link) as file:
            file.write(content)
        assert link.is_symlink()
        assert (tmp_path / "elsewhere" / "net.pth").read_bytes() == content


def test_a_link_to_nowhere_and_the_longest_name(tmp_path: Path) -> None:
    for path in (tmp_path / "link", tmp_path / ("n" * 255)):
        if path.name == "link":
            path.symlink_to(tmp_path / "gone" / "net.pth")
        with whole_file(path) as file:
            file.write(b"content")
        assert path.read_bytes() == b"content"


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with whole_file(pipe) as file:
        file.write(b"content")
    reader.join(timeout=20)
    assert received == [b"content"]
    assert pipe.is_fifo()


def test_saving_into_an_open_file_is_torchs_own() -> None:
    buffer = io.BytesIO()
    Saving().save({"params": 1}, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == {"params": 1}


@pytest.mark.parametrize("filename", [None, "/somewhere/options.yml"])
def test_other_files_on_a_full_disk(filename: str | None) -> None:
    error: Any = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), filename)
    place = filename or str(Path.cwd())
    said = rf"'{place}' could not be written: No space left .* free there\. Make room"
    with pytest.raises(NotSavedError, match=said), named_if_the_disk_is_full():
        raise error


def test_full_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no file name, and where the run writes there is room."""
    monkeypatch.setattr(disk, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(disk, "_LITTLE", float("inf"))
    said = rf"shared memory.*{tmp_path}.*num_worker_per_gpu: 0"
    with pytest.raises(NotSavedError, match=said), named_if_the_disk_is_full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("part", [".", "file", "gone/file"])
def test_room_is_that_of_the_file_system_itself(part: str, tmp_path: Path) -> None:
    """A folder may be where another disk begins."""
    with small_disk(tmp_path):
        (tmp_path / "file").touch()
        assert room_at(tmp_path / part) == "2.1 MB are free there"


def test_images_of_a_validation_on_a_full_disk(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV would only say that it failed, and BasicSR no more than that."""

    fsync = os.fsync

    def refuse(file: int) -> None:
        if "visualization" in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    options = with_validation(train_options(pairs, total_iter=1), pairs, every=1)
    options["val"]["save_img"] = True
    file = str(write(options, tmp_path))
    monkeypatch.setattr(os, "fsync", refuse)
    with isolated(tmp_path):
        assert main(["train", "-opt", file]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"'\S+/visualization/\S+\.png' could not be written: .* free there\. Make room there\.", said)


def test_other_errors_of_the_disk_are_left_as_they_are() -> None:
    with pytest.raises(PermissionError, match="options"), named_if_the_disk_is_full():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "options.yml")


def test_a_disk_that_is_read_only_is_what_the_error_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only") as caught, whole_file(tmp_path / "a.png"):
        pass
    assert caught.value.filename == str(tmp_path / "a.png")
