"""Files that are either whole or not there, whenever a process is killed and whatever the disk holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_UNFINISHED = ".unfinished"  # unlike `.state` and `.pth`, an ending that nobody looks for


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name, and the place of an earlier one, when all of it is on the disk.

    Until then, and for good if the process is killed, it is another file beside it; see `remove_unfinished`. A link
    stays one, and what is no file (``/dev/null``, a pipe) is written to as it is.

    Raises:
        OSError: if it cannot be written; an earlier file of that name is left as it was.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    target = path.resolve()
    path = target if target.parent.is_dir() else path
    # Several processes may save the same; a name has up to 255 bytes.
    unfinished = path.with_name(f"{path.name[:200]}.{os.getpid()}{_UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut leaves the name, and zeros in the place of what was written
        unfinished.replace(path)
    except BaseException as error:
        with suppress(OSError):  # of a disk that nothing can be written to; it is not what went wrong first
            unfinished.unlink()
        # Pillow's own errors have no number, and say what is wrong themselves.
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(unfinished)):
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text as a `whole_file`; errors are those of that."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process left of its last file in ``folder``."""
    for path in folder.glob(f"*{_UNFINISHED}"):
        path.unlink()
