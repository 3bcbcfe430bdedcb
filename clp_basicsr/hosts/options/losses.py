"""The perceptual loss in an option file: where it stands, and what it is called."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.options.file import check_block
from clp_basicsr.hosts.options.types import is_basicsrs, is_registered, registered
from clp_basicsr.messages import shown

_NAME = "CLPLoss"
_TAKE_A_NUMBER = ("pixel_opt", "ldl_opt", "gan_opt")  # perceptual_opt is the one of which BasicSR takes a pair


def check_losses(path: Path, options: Mapping[str, Any], losses: Iterable[str]) -> None:
    """Check the perceptual loss as far as BasicSR does not say what is wrong.

    Args:
        path: where the options come from.
        options: all of them.
        losses: the names that a loss's ``type`` can have.

    Raises:
        OptionFileError: if it is no block, or `CLPLoss` without its name, misspelt, or where nobody looks for it.
    """
    for name, block in options.items():
        if isinstance(block, Mapping) and block.get("type") == _NAME:
            raise OptionFileError(
                f"Block `{name}` in '{path}' is a {_NAME} at the top of the file, where nothing reads it. Indent it: "
                "it belongs below `train:`, as `perceptual_opt`."
            )
    if options.get("train") is None:
        return
    blocks = check_block(path, "train", options["train"])
    if is_basicsrs(registered("MODEL", options.get("model_type"))):
        _check_places(path, blocks)
    block = blocks.get("perceptual_opt")
    if not block:  # BasicSR takes an empty one for none
        return
    block = check_block(path, "train: perceptual_opt", block)
    if not block.get("type"):
        raise OptionFileError(
            f"Option `train: perceptual_opt` in '{path}' must have a `type`, but has only {shown([*block])}. "
            f"Add `type: {_NAME}`."
        )
    _check_type(path, "train: perceptual_opt", block["type"], losses)


def _check_places(path: Path, blocks: Mapping[str, Any]) -> None:
    for name in _TAKE_A_NUMBER:
        block = blocks.get(name)
        if isinstance(block, Mapping) and block.get("type") == _NAME:
            raise OptionFileError(
                f"Option `train: {name}` in '{path}' must be a loss of its own kind, but is a {_NAME}, which BasicSR's "
                "models take as `perceptual_opt`. Rename the block."
            )


def _check_type(path: Path, where: str, given: object, losses: Iterable[str]) -> None:
    """Refuse what is meant to be `CLPLoss`: of a name it does not know BasicSR only says that."""
    if not isinstance(given, str) or is_registered(given, losses):
        return
    if difflib.SequenceMatcher(a=given.lower(), b=_NAME.lower()).ratio() > 0.8:
        raise OptionFileError(
            f"Option `{where}: type` in '{path}' must be a loss that BasicSR knows, but got {given!r}. "
            f"Did you mean '{_NAME}'?"
        )
