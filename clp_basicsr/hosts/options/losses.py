"""The perceptual loss in an option file: where it stands, and what it is called."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.options.file import check_block
from clp_basicsr.hosts.options.types import check_registered, is_basicsrs, registered
from clp_basicsr.messages import shown

_NAME = "CLPLoss"
_PERCEPTUAL = "perceptual_opt"  # the one of which BasicSR takes a pair
_TAKE_A_NUMBER = ("pixel_opt", "ldl_opt", "gan_opt")


def check_losses(path: Path, options: Mapping[str, Any]) -> None:
    """Check the perceptual loss as far as BasicSR does not say what is wrong.

    Args:
        path: where the options come from.
        options: all of them.

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
        _check_those_it_builds(path, blocks)
    block = blocks.get(_PERCEPTUAL)
    if not block:  # BasicSR takes an empty one for none
        return
    block = check_block(path, "train: perceptual_opt", block)
    if not block.get("type"):
        raise OptionFileError(
            f"Option `train: perceptual_opt` in '{path}' must have a `type`, but has only {shown([*block])}. "
            f"Add `type: {_NAME}`."
        )
    _check_type(path, "train: perceptual_opt", block["type"])


def _check_those_it_builds(path: Path, blocks: Mapping[str, Any]) -> None:
    for name in (_PERCEPTUAL, *_TAKE_A_NUMBER):
        block = blocks.get(name)
        if not isinstance(block, Mapping) or not block.get("type"):
            continue
        check_registered(path, f"train: {name}: type", block["type"], "LOSS")
        if block["type"] == _NAME and name != _PERCEPTUAL:
            cure = "Give it a loss of its own again." if blocks.get(_PERCEPTUAL) else f"Rename it to `{_PERCEPTUAL}`."
            raise OptionFileError(
                f"Option `train: {name}` in '{path}' must be a loss of its own kind, but is a {_NAME}, which BasicSR's "
                f"models take as `{_PERCEPTUAL}`. {cure}"
            )


def _check_type(path: Path, where: str, given: object) -> None:
    """Refuse what is meant to be `CLPLoss`: of a name it does not know BasicSR only says that."""
    if not isinstance(given, str) or registered("LOSS", given) is not None:
        return
    if difflib.SequenceMatcher(a=given.lower(), b=_NAME.lower()).ratio() > 0.8:
        raise OptionFileError(
            f"Option `{where}: type` in '{path}' must be a loss that BasicSR knows, but got {given!r}. "
            f"Did you mean '{_NAME}'?"
        )
