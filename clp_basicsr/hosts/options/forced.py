"""``--force_yml KEY:KEY=VALUE``: options on the command line, which BasicSR puts into those of the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.messages import did_you_mean, reason, shown


def with_forced(path: Path, options: dict[str, Any], entries: Sequence[str]) -> dict[str, Any]:
    """Return the options of a file as ``parse_options`` in basicsr/utils/options.py changes them.

    Args:
        path: where the options come from.
        options: all of them; they are changed.
        entries: what follows the flag.

    Raises:
        OptionFileError: if it would fail at one: no value, or no such block.
    """
    for entry in entries:
        keys, *values = entry.split("=")
        if len(values) != 1:
            raise OptionFileError(f"Flag `--force_yml` must be followed by KEY:KEY=VALUE, but got {shown(entry)}.")
        *blocks, last = keys.strip().split(":")
        _block(path, options, entry, blocks)[last] = _value(entry, values[0].strip())
    return options


def _block(path: Path, options: dict[str, Any], entry: str, keys: Sequence[str]) -> dict[str, Any]:
    block = options
    for depth, key in enumerate(keys):
        inner = block.get(key)
        if not isinstance(inner, dict):
            place = f"below `{': '.join(keys[:depth])}`" if depth else "at the top"
            blocks = [name for name, each in block.items() if isinstance(each, dict)]
            raise OptionFileError(
                f"Flag `--force_yml` must name blocks that are in '{path}', but got {shown(entry)}, and {place} there "
                f"is no block `{key}`, only {blocks}.{did_you_mean(key, blocks)}"
            )
        block = inner
    return block


def _value(entry: str, text: str) -> Any:
    from basicsr.utils.options import _postprocess_yml_value

    try:
        return _postprocess_yml_value(text)
    except Exception as error:  # what begins with a bracket is taken for Python
        raise OptionFileError(
            f"Flag `--force_yml` must be followed by a value as in YAML, but got {shown(entry)}: {reason(error)}"
        ) from error
