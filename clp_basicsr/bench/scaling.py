"""How the time of a step grows with batch, crop size, negatives and layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from clp_basicsr.bench.contenders import Contender, build
from clp_basicsr.bench.measuring import Call, rounds, spread, training_step
from clp_basicsr.extractors.vgg import DEFAULT_LAYER_WEIGHTS
from clp_basicsr.pictures.canvas import new_figure, save_figure

Curve = dict[str, list[float]]
_LAYERS = list(DEFAULT_LAYER_WEIGHTS)


def measure(batch: int, size: int, count: int, device: torch.device) -> dict[str, Curve]:
    """Return, by what is varied, the values and the median milliseconds of `vgg` around one setting."""
    curves: dict[str, Curve] = {}
    for name, calls in _variations(batch, size, device):
        seconds = rounds(calls, count, 1, device)
        curves[name] = {
            "value": [float(value) for value in calls],
            "milliseconds": [spread(each).median * 1e3 for each in seconds.values()],
        }
    return curves


def plot(file: Path, curves: dict[str, Curve], caption: str) -> None:
    """Draw the curves side by side.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    figure = new_figure(12, 3.2)
    figure.suptitle(caption)
    for axes, (name, curve) in zip(figure.subplots(1, len(curves)), curves.items()):
        axes.plot(curve["value"], curve["milliseconds"], "o-")
        axes.set(xlabel=name, ylabel="ms per step", ylim=(0, 1.1 * max(curve["milliseconds"])))
    save_figure(figure, file)


def _variations(batch: int, size: int, device: torch.device) -> Iterator[tuple[str, dict[str, Call]]]:
    def call(batch: int = batch, size: int = size, **keywords: Any) -> Call:
        contender: Contender = build("vgg", device, **keywords)
        return training_step(contender, batch, size, device)

    yield "batch", {str(each): call(batch=each) for each in (1, 2, 4, 8)}
    yield "crop size, pixels", {str(each): call(size=each) for each in (64, 96, 128, 192)}
    yield (
        "negatives K",
        {str(count): call(negatives=[{"type": "blur", "count": count, "seed": 0}]) for count in (1, 2, 4, 8)},
    )
    yield (
        "layers, the deepest first",
        {str(count): call(layer_weights=dict.fromkeys(_LAYERS[-count:], 1.0)) for count in range(1, len(_LAYERS) + 1)},
    )
