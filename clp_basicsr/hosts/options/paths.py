"""Folders and files that an option file names and that are not there: BasicSR's word for them is ``[Errno 2]``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clp_basicsr.hosts.options.data_sets import DATA_SETS
from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.options.types import networks_it_builds, plain_name
from clp_basicsr.messages import shown


def check_data(path: Path, options: Mapping[str, Any]) -> None:
    """Check the folders and lists of the data sets that BasicSR knows, where they are on disk.

    Args:
        path: where the options come from.
        options: all of them.

    Raises:
        OptionFileError: for what is not given or not there.
    """
    for phase, data in options["datasets"].items():
        kind = plain_name(data.get("type")) if isinstance(data, Mapping) else None
        if kind in DATA_SETS:
            _check_roots(path, f"datasets: {phase}", kind, data)


def check_pretrained(path: Path, options: Mapping[str, Any], *, training: bool) -> None:
    """Check the weights that BasicSR's models start from.

    Args:
        path: where the options come from.
        options: all of them.
        training: whether they are for a training.

    Raises:
        OptionFileError: for a file that is not there.
    """
    for network in networks_it_builds(options, training=training):
        given = options["path"].get(f"pretrain_{network}")
        if isinstance(given, str):
            _check_file(path, f"path: pretrain_{network}", os.path.expanduser(given))


def _check_roots(path: Path, where: str, kind: str, data: Mapping[str, Any]) -> None:
    for name in DATA_SETS[kind].roots:
        if data.get(name) is None:
            raise OptionFileError(
                f"Option `{where}` in '{path}' is of type {kind} and must have `{name}`, but has only "
                f"{shown([*data])}.{_misnamed(name, data)}"
            )
    backend = data.get("io_backend")
    backend = backend.get("type") if isinstance(backend, Mapping) else None
    list_name = "meta_info" if kind.startswith("RealESRGAN") else "meta_info_file"
    listed = data.get(list_name)
    if backend == "disk" and isinstance(listed, str):
        _check_file(path, f"{where}: {list_name}", listed)
        if _lists_whole_paths(listed):
            return
    if backend in ("disk", "lmdb"):
        for name in DATA_SETS[kind].roots:
            _check_folder(path, f"{where}: {name}", data[name])
    negatives = data.get("dataroot_neg") if kind == "PairedNegativeDataset" else None
    for folder in negatives if isinstance(negatives, list) else [negatives]:
        _check_folder(path, f"{where}: dataroot_neg", folder)


def _misnamed(name: str, data: Mapping[str, Any]) -> str:
    others = [each for each in data if each not in ("dataroot_gt", "dataroot_lq", "dataroot_neg")]
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.8)
    return f" Did you mean it by `{near[0]}`?" if near else ""


def _check_folder(path: Path, where: str, given: object) -> None:
    if isinstance(given, str) and not os.path.exists(os.path.expanduser(given)):
        raise OptionFileError(_nothing_there(path, where, "a folder", given))


def _check_file(path: Path, where: str, given: str) -> None:
    if not os.path.isfile(given):
        raise OptionFileError(_nothing_there(path, where, "a file", given))


def _nothing_there(path: Path, where: str, what: str, given: str) -> str:
    return f"Option `{where}` in '{path}' must be {what}, but there is none at {shown(given)} (from '{Path.cwd()}')."


def _lists_whole_paths(file: str) -> bool:
    """Say whether a list of images goes without the folders, which are then only joined to it and forgotten."""
    with open(file, errors="replace") as lines:
        return os.path.isabs(lines.readline().strip())
