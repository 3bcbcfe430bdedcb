"""What a run left behind, and what the loss was given in it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from clp_basicsr import loss
from clp_basicsr.images import check_images

CLP_KEYS = {"clp_pull", "clp_push", "clp_active"}
Entries = dict[int, dict[str, float]]


def log_text(experiment: Path) -> str:
    """Return the newest log file of an experiment."""
    return max(experiment.glob("*.log")).read_text(encoding="utf-8")


def log_entries(experiment: Path) -> Entries:
    """Return ``{iteration: {name: value}}`` as printed in the newest log."""
    entries: Entries = {}
    for iteration, values in re.findall(r"iter:\s*([\d,]+), lr:.*?\)\].*?\] (l_.*)$", log_text(experiment), re.M):
        pairs = re.findall(r"(\w+): (\S+)", values)
        entries[int(iteration.replace(",", ""))] = {name: float(value) for name, value in pairs}
    return entries


def scalars(experiment: Path) -> Entries:
    """Return ``{iteration: {tag: value}}`` of the run's TensorBoard file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events = EventAccumulator(str(experiment.parents[1] / "tb_logger" / experiment.name))
    events.Reload()
    entries: Entries = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            entries.setdefault(event.step, {})[tag] = event.value
    return entries


def reduced_scalars(experiment: Path) -> Entries:
    """As `scalars`, without the layers' numbers: under torchrun these are the first process's own."""
    return {
        iteration: {tag: value for tag, value in values.items() if not tag.startswith("clp/")}
        for iteration, values in scalars(experiment).items()
    }


@dataclass
class Call:
    """One call of the loss: copies of the images it saw."""

    sr: Tensor
    target: Tensor
    lr: Tensor


@dataclass
class Records:
    """What the host fed its model and what the loss saw, in order."""

    fed: list[dict[str, Tensor]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Records:
    """Watch for the time of a test."""
    return watch(monkeypatch.setattr)


def watch(replace: Callable[[Any, str, Any], None]) -> Records:
    """Watch `SRModel.feed_data` and the images each call of any CLPLoss checks first."""
    from basicsr.models.sr_model import SRModel

    seen = Records()

    def call(sr: Tensor, target: Tensor, lr: Tensor) -> None:
        seen.calls.append(Call(*(images.detach().clone() for images in (sr, target, lr))))

    def feed(model: Any, data: dict[str, Any]) -> None:
        seen.fed.append({name: data[name].clone() for name in ("lq", "gt")})

    replace(loss, "check_images", _after(call, check_images))
    replace(SRModel, "feed_data", _after(feed, SRModel.feed_data))
    return seen


def _after(first: Callable[..., None], then: Callable[..., Any]) -> Callable[..., Any]:
    def both(*arguments: Any) -> Any:
        first(*arguments)
        return then(*arguments)

    return both
