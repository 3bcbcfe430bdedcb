"""Mistakes in an option file for which BasicSR has no words: a bare KeyError, or a traceback out of PyYAML."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from clp_basicsr.messages import reason, shown

_NAME = "CLPLoss"


class OptionFileError(ValueError):
    """An option file with which BasicSR cannot start."""


def check_option_file(path: Path, losses: Iterable[str]) -> None:
    """Check that a file is YAML, and its losses under ``train`` as far as BasicSR does not say what is wrong.

    Args:
        path: an existing file.
        losses: the names that a loss's ``type`` can have.

    Raises:
        OptionFileError: if it is no YAML, has names that are no text, or `CLPLoss` without its name or misspelt.
    """
    options = _read(path)
    _check_names(path, "", options)
    train = options.get("train")
    if train is None:
        return
    _check_block(path, "train", train)
    for name, block in train.items():
        if name == "perceptual_opt" and block is not None:
            _check_block(path, f"train: {name}", block)
            if not block.get("type"):
                raise OptionFileError(
                    f"Option `train: {name}` in '{path}' must have a `type`, but has only {shown([*block])}. "
                    f"Add `type: {_NAME}`."
                )
        if isinstance(block, Mapping):
            _check_type(path, f"train: {name}", block.get("type"), losses)


def _read(path: Path) -> dict[str, Any]:
    from basicsr.utils.options import ordered_yaml

    try:
        with path.open(encoding="utf-8") as file:
            options = yaml.load(file, Loader=ordered_yaml()[0])
    except Exception as error:  # PyYAML lets through what it meets: bytes, dates, tags, keys that no mapping takes
        where = getattr(error, "problem_mark", None)
        line = "" if where is None else f" in line {where.line + 1}"
        why = getattr(error, "problem", None) or reason(error)
        raise OptionFileError(f"Option file '{path}' must be YAML, but it cannot be read{line}: {why}.") from error
    if not isinstance(options, dict):
        raise OptionFileError(f"Option file '{path}' must hold a mapping (name: …), but got {shown(options)}.")
    return options


def _check_block(path: Path, where: str, given: object) -> None:
    if not isinstance(given, Mapping):
        raise OptionFileError(
            f"Option `{where}` in '{path}' must be a block of options, but got {shown(given)}. "
            "Indent what belongs to it."
        )


def _check_names(path: Path, where: str, block: Mapping[Any, Any]) -> None:
    """Refuse names that are no text, everywhere: BasicSR prints all of them, joined to text."""
    for name, value in block.items():
        if not isinstance(name, str):
            place = f" under `{where}`" if where else ""
            raise OptionFileError(f"Names of options in '{path}' must be text, but got {shown(name)}{place}.")
        if isinstance(value, Mapping):
            _check_names(path, f"{where}: {name}".removeprefix(": "), value)


def _check_type(path: Path, where: str, given: object, losses: Iterable[str]) -> None:
    """Refuse what is meant to be `CLPLoss`: of a name it does not know BasicSR only says that."""
    names = set(losses)
    if not isinstance(given, str) or {given, f"{given}_basicsr"} & names:
        return
    if difflib.SequenceMatcher(a=given.lower(), b=_NAME.lower()).ratio() > 0.75:
        raise OptionFileError(
            f"Option `{where}: type` in '{path}' must be a loss that BasicSR knows, but got {given!r}. "
            f"Did you mean '{_NAME}'?"
        )
