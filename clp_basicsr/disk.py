"""Saying what a full disk means: Python's and torch's own errors name neither the file nor a cure."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHARED_MEMORY = Path("/dev/shm")
_LITTLE = 1_000_000


class NotSavedError(RuntimeError):
    """Something that a run has to keep could not be written."""


@contextmanager
def named_if_the_disk_is_full() -> Iterator[None]:
    """Turn an error for want of room into one that says where room is wanted.

    Raises:
        NotSavedError: in place of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        if not error.filename and _is_full(_SHARED_MEMORY):
            raise NotSavedError(
                f"The data loader needs shared memory, but {room_at(_SHARED_MEMORY)} ('{_SHARED_MEMORY}'). Make it "
                "larger (docker run --shm-size=8g), or set `num_worker_per_gpu: 0`."
            ) from error
        place = Path(error.filename or Path.cwd())
        what = f"'{place}'" if error.filename else f"The run's log or TensorBoard file below '{place}'"
        raise NotSavedError(
            f"{what} could not be written: {error.strerror}; {room_at(place)}. Make room there."
        ) from error


def _is_full(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free < _LITTLE


def room_at(path: Path) -> str:
    """Say how much room is left on the disk of a folder, or of a file, that may not be there."""
    folder = next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())
    return f"{readable_size(shutil.disk_usage(folder).free)} are free there"


def readable_size(size: int) -> str:
    """Return a number of bytes as a person reads it: ``"3.4 MB"``."""
    value, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
