"""Which checkpoint a run goes on from: the newest that is whole, its networks included."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from clp_basicsr.messages import reason, warn
from clp_basicsr.whole_files import remove_unfinished

_NUMBER = re.compile(r"_(\d+|latest)\.pth$")

Options = dict[str, Any]
State = dict[str, Any]


class DamagedCheckpointError(RuntimeError):
    """A file of a checkpoint is missing, or cannot be read as it was written."""


class UntrustedCheckpointError(RuntimeError):
    """A checkpoint is whole, but holds what torch does not read without being told that it may."""


def load_resume_state(opt: Options) -> State | None:
    """Return the training state to resume from, read to the CPU, or None to start afresh.

    As ``load_resume_state`` in basicsr/train.py, which needs a GPU to read with, and takes the state of
    the highest number whatever is in it. Optimizers move what they load to where their parameters are.

    Raises:
        DamagedCheckpointError: if ``path: resume_state`` asks for a checkpoint that is not whole.
        UntrustedCheckpointError: if the newest that is whole, or the one asked for, holds more than torch reads.
        FileNotFoundError: if it asks for one that is not there.
    """
    from basicsr.utils import check_resume

    found = newest_whole(opt) if opt["auto_resume"] else _asked_for(opt)
    if found is None:
        return None
    path, state = found
    opt["path"]["resume_state"] = str(path)
    check_resume(opt, state["iter"])
    if opt["rank"] == 0:
        for folder in ("models", "training_states"):
            remove_unfinished(Path(opt["path"][folder]))
    return state


def states(folder: Path) -> list[Path]:
    """Return BasicSR's training states in ``folder``, that of the highest iteration first."""
    found = [path for path in folder.glob("*.state") if path.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


def newest_whole(opt: Options) -> tuple[Path, State] | None:
    """Return the state of the highest iteration that is whole, its networks included, and warn of those passed over.

    Raises:
        UntrustedCheckpointError: if that holds more than torch reads.
    """
    found = states(Path(opt["path"]["training_states"]))
    for path in found:
        try:
            return path, _load_whole(path, opt)
        except DamagedCheckpointError as error:
            warn(f"The checkpoint of iteration {path.stem} is skipped: {error}.")
    if found:
        warn(
            f"No training state in '{found[0].parent}' can be resumed from: training starts at iteration 0. "
            "The folder of the earlier run stays, with `_archived_` and the time added to its name."
        )
    return None


def _asked_for(opt: Options) -> tuple[Path, State] | None:
    path = opt["path"].get("resume_state")
    if not path:
        return None
    try:
        return Path(path), _load_whole(Path(path), opt)
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(
            f"Argument `path: resume_state` must be a training state that can be resumed from, but got '{path}': "
            f"{error}. Name an earlier one, or use --auto_resume, which takes the newest that is whole."
        ) from error


def _load_whole(path: Path, opt: Mapping[str, Any]) -> State:
    state: State = _read(path)
    if not isinstance(state, Mapping) or "iter" not in state:
        raise DamagedCheckpointError(f"'{path}' is no training state: it does not say its iteration")
    networks = _networks(opt, state["iter"])
    if not networks and _labels(opt):
        raise DamagedCheckpointError(
            f"there are no networks of iteration {state['iter']} in '{opt['path']['models']}', which is where BasicSR "
            f"looks for them in a run of the name '{opt['name']}'"
        )
    for network in networks:
        if not network.exists():
            raise DamagedCheckpointError(f"'{network}' is missing")
        _read(network)
    return state


def _networks(opt: Mapping[str, Any], iteration: int) -> list[Path]:
    """The files from which ``check_resume`` in basicsr/utils/misc.py lets a model load its networks.

    It names one for each network of the option file, whether the model has such a network or not:
    those of which nothing was ever saved are left out.
    """
    folder = Path(opt["path"]["models"])
    saved = {_NUMBER.sub("", file.name) for file in folder.glob("net_*.pth")}
    return [folder / f"net_{label}_{iteration}.pth" for label in _labels(opt) if f"net_{label}" in saved]


def _labels(opt: Mapping[str, Any]) -> list[str]:
    ignored = opt["path"].get("ignore_resume_networks") or ()
    return [name.replace("network_", "") for name in opt if name.startswith("network_") and name not in ignored]


def _read(path: Path) -> Any:
    """Read a file of `torch.save`, a zip archive with checksums, which `torch.load` does not look at."""
    with _opened(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                changed = archive.testzip()
            if changed is None:
                file.seek(0)
                return torch.load(file, map_location="cpu")  # as BasicSR: weights only, but for torch's own variable
        except pickle.UnpicklingError as error:  # the checksums are right: it was written so
            raise UntrustedCheckpointError(
                f"'{path}' is whole, but holds other objects than tensors and numbers, which could run code and are "
                "not loaded. If you trust the file, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 for this run."
            ) from error
        except Exception as error:  # of many types, depending on where the damage is
            raise DamagedCheckpointError(f"'{path}' is cut off or damaged ({reason(error)})") from error
    raise DamagedCheckpointError(f"'{path}' is damaged (checksum of '{changed}')")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except IsADirectoryError as error:  # others say nothing of the checkpoint: too many open files, a disk that is away
        raise DamagedCheckpointError(f"'{path}' is a folder") from error


@contextmanager
def named_if_a_network_was_never_saved() -> Iterator[None]:
    """Turn BasicSR's error at a resume of a run that had other networks into one with its cure.

    Raises:
        FileNotFoundError: in place of the bare one, when ``net_d`` is looked for in a run that had none.
    """
    try:
        yield
    except FileNotFoundError as error:
        path = Path(str(error.filename or ""))
        _, label, iteration = path.stem.split("_") if path.stem.count("_") == 2 else ("", "", "")
        state = path.parent.parent / "training_states" / f"{iteration}.state"
        if not path.stem.startswith("net_") or not state.exists():
            raise
        raise FileNotFoundError(
            f"'{path}' is missing: the run that is to go on has no `network_{label}`. If this is another stage of the "
            f"training, give it a `name` of its own and start from the earlier one's network: `path: "
            f"pretrain_network_g: {path.with_name(f'net_g_{iteration}.pth')}`."
        ) from error
