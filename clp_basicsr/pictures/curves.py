"""Training curves out of TensorBoard logs: which folder a run's name means, and what its files say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clp_basicsr.messages import did_you_mean, needs_package


class Curve(NamedTuple):
    """One number over the iterations."""

    iterations: list[int]
    values: list[float]


class Run(NamedTuple):
    """One training run."""

    name: str
    """As it was asked for."""
    curves: Mapping[str, Curve]


def read_run(given: str) -> Run:
    """Return the curves of a BasicSR run by TensorBoard's tags.

    What a resume trained again replaces what was logged for these iterations before.

    Args:
        given: a folder, or the name of one below ``tb_logger/`` or ``experiments/``, such as ``NAME`` or
            ``NAME_archived_20250101_000000``.

    Raises:
        FileNotFoundError: if there is no such run, or it has no TensorBoard log.
        ImportError: if TensorBoard is not installed.
    """
    folder = _log_folder(given)
    accumulator = _accumulator(folder)
    curves = {tag: _joined(accumulator.Scalars(tag)) for tag in accumulator.Tags()["scalars"]}
    if not curves:
        raise FileNotFoundError(
            f"The run '{given}' must have logged numbers to TensorBoard, but '{folder}' holds none yet. A run writes "
            "them every `logger: print_freq` iterations."
        )
    return Run(given, curves)


def _log_folder(given: str) -> Path:
    path = Path(given)
    # BasicSR keeps a run's log apart from its other files, the demo beside them.
    sibling = path.parent.parent / "tb_logger" / path.name
    places = [path, sibling, Path("tb_logger") / given, Path("experiments") / given]
    candidates = [each for place in places for each in (place, place / "tb_logger")]
    for candidate in candidates:
        if any(candidate.glob("events.out.tfevents.*")):
            return candidate
    found = [str(place) for place in places if place.is_dir()]
    if found:
        raise FileNotFoundError(
            f"The run '{given}' must have a TensorBoard log, but there is none in {' or '.join(map(repr, found))}. "
            "Train with `logger: use_tb_logger: true` and a name without 'debug'."
        )
    known = sorted({each.name for root in ("tb_logger", "experiments") for each in Path(root).glob("*/")})
    raise FileNotFoundError(
        "Argument `EXPERIMENT` must be a run below tb_logger/ or experiments/, or a folder, but there is no "
        f"'{given}' (from '{Path.cwd()}'). There are: {known}.{did_you_mean(given, known)}"
    )


def _accumulator(folder: Path) -> Any:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        cure = "Install it with: pip install tensorboard 'setuptools<82'"  # older ones import pkg_resources
        raise ImportError(needs_package("Reading training curves", "tensorboard", cure, error)) from error
    # All points: how to join runs is decided here.
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    return accumulator.Reload()


def _joined(events: list[Any]) -> Curve:
    """Join what several sessions wrote: where one goes back in time, it replaces what stood there."""
    kept: list[Any] = []
    for event in sorted(events, key=lambda event: float(event.wall_time)):
        while kept and kept[-1].step >= event.step:
            kept.pop()
        kept.append(event)
    return Curve([event.step for event in kept], [event.value for event in kept])
