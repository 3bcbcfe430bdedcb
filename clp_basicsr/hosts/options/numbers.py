"""Numbers that YAML made text of: BasicSR computes with them, and fails with a TypeError, perhaps hours later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from clp_basicsr.arguments import yaml_hint
from clp_basicsr.hosts.options.errors import OptionFileError

_WHOLE = (
    "scale",
    "num_gpu",
    "manual_seed",
    "datasets: train: gt_size",
    "datasets: train: num_worker_per_gpu",
    "datasets: train: batch_size_per_gpu",
    "datasets: train: num_prefetch_queue",
)
_TO_TRAIN = (
    "datasets: train: dataset_enlarge_ratio",
    "train: total_iter",
    "train: warmup_iter",
    "train: ema_decay",
    "train: net_d_iters",
    "train: net_d_init_iters",
    "train: optim_*: lr",
    "train: optim_*: weight_decay",
    "train: optim_*: eps",
    "train: optim_*: betas",
    "train: scheduler: milestones",
    "train: scheduler: gamma",
    "train: scheduler: periods",
    "train: scheduler: restart_weights",
    "train: scheduler: eta_min",
    "train: *_opt: loss_weight",
    "val: val_freq",
    "logger: print_freq",
    "logger: save_checkpoint_freq",
)
_ALWAYS = ("val: metrics: *: crop_border",)
_CHECK_THEMSELVES = ("CLPLoss", "calculate_clp_pull", "calculate_feature_distance", "calculate_pyiqa")


def check_numbers(path: Path, options: Mapping[str, Any], *, training: bool) -> None:
    """Check what BasicSR computes with; all other options may be text that looks like a number.

    Args:
        path: where the options come from.
        options: all of them.
        training: whether they are for a training.

    Raises:
        OptionFileError: for the first number that is text.
    """
    patterns = (*_WHOLE, *_ALWAYS, *(_TO_TRAIN if training else ()))
    for where, value in _leaves("", options):
        if not yaml_hint(value) or not any(fnmatchcase(where, pattern) for pattern in patterns):
            continue
        if where == "train: total_iter" and value.isdigit():  # BasicSR makes an int of it
            continue
        raise OptionFileError(
            f"Option `{where}` in '{path}' must be a number, but got the text {value!r}.{_cure(where, value)}"
        )


def _leaves(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if str(value.get("type")) in _CHECK_THEMSELVES:
            return
        for name, inner in value.items():
            yield from _leaves(f"{where}: {name}".removeprefix(": "), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(where, inner)
    else:
        yield where, value


def _cure(where: str, text: str) -> str:
    number = float(text)
    if where in _WHOLE and number.is_integer():
        return f" Write it as {number:.0f}, without quotes."
    return yaml_hint(text)
