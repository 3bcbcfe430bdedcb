"""How BasicSR's models save in a launched run: each file whole or not at all, and never silently not at all.

BasicSR writes straight to the file that a resume will read, and trains on when that failed three times.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clp_basicsr.disk import NO_ROOM, NotSavedError, readable_size, room_at
from clp_basicsr.messages import reason
from clp_basicsr.whole_files import whole_file

_torch_save = torch.save


class Saving:
    """What stands for `torch.save`, and around the methods that call it, in one run."""

    def __init__(self) -> None:
        self._failure: NotSavedError | None = None

    def save(self, obj: object, f: Any, *arguments: Any, **keywords: Any) -> None:
        """As `torch.save`; a file that is given by its name appears when all of it is on the disk.

        Raises:
            NotSavedError: if it cannot be written; an earlier file of that name is left as it was.
        """
        if not isinstance(f, (str, os.PathLike)):
            _torch_save(obj, f, *arguments, **keywords)
            return
        path = Path(f)
        self._failure = None
        try:
            with whole_file(path) as file:
                _torch_save(obj, file, *arguments, **keywords)
        except Exception as error:
            self._failure = NotSavedError(_what_went_wrong(path, obj, error))
            raise self._failure from error

    def never_ignored(self, method: Callable[..., None]) -> Callable[..., None]:
        """Return a saving method of BasicSR's that raises what it would ignore after its last try."""

        @functools.wraps(method)
        def save_or_raise(*arguments: Any, **keywords: Any) -> None:
            self._failure = None
            method(*arguments, **keywords)
            if self._failure is not None:
                raise self._failure

        return save_or_raise


def _what_went_wrong(path: Path, obj: object, error: Exception) -> str:
    # torch's writer fails once more when it closes, and that error hides the disk's.
    of_the_disk = _of_the_disk(error)
    text = f"'{path}' could not be saved: {of_the_disk.strerror if of_the_disk else reason(error)}."
    if of_the_disk and of_the_disk.errno in NO_ROOM:
        text += f" It takes {readable_size(_saved_size(obj))}, and {room_at(path)}. Make room there."
    return text


def _of_the_disk(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _saved_size(obj: object) -> int:
    counter = _Counter()
    _torch_save(obj, counter)
    return counter.size


class _Counter(io.BytesIO):
    """A file that keeps nothing but its size."""

    size = 0

    def write(self, data: Any) -> int:
        written = memoryview(data).nbytes
        self.size += written
        return written
