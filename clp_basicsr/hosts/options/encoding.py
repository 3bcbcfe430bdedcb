"""The encoding of an option file: UTF-8, as files are written today; else the machine's own, as BasicSR opens all.

On Windows that own one is another: a name with an umlaut, written as UTF-8, would be another name.
"""

from __future__ import annotations

import locale
from pathlib import Path
from typing import IO, Any


def encoding_of(path: Path) -> str:
    """Return the encoding of a text file."""
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return locale.getpreferredencoding(False)
    return "utf-8-sig" if content.startswith(b"\xef\xbb\xbf") else "utf-8"


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        OSError: if it cannot be read.
        UnicodeDecodeError: if it is neither UTF-8 nor in the machine's own encoding.
    """
    return path.read_text(encoding=encoding_of(path))


def open_text(file: Any, mode: str = "r", *args: Any, **keywords: Any) -> IO[Any]:
    """Open a text file that is there in its encoding, all else as `open` does; in its place in BasicSR's modules."""
    if set(mode) & set("bwxa") or args or "encoding" in keywords or not Path(file).is_file():
        return open(file, mode, *args, **keywords)
    return open(file, mode, encoding=encoding_of(Path(file)), **keywords)
