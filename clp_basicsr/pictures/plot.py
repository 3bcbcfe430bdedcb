"""``clp-basicsr plot``: the training curves of one or several runs, one panel for each number."""

from __future__ import annotations

import argparse
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clp_basicsr.pictures.canvas import check_matplotlib, new_figure, pixels
from clp_basicsr.pictures.curves import Curve, Run, read_run
from clp_basicsr.pictures.files import make_folder, write_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3
_LAYERS = ("pull", "push", "progress", "overshoot", "active")
_STYLES = ("-", "--", ":", "-.")
_SMALL = 8
_LEGEND_ROWS = 12
_SMOOTHED_FROM = 30  # points
_LEFT_OUT = {"clp/target_min", "clp/target_max"}
# With several losses in one model the loss's name stands in front.
_OF_A_LAYER = re.compile(r"(?P<loss>.*?)clp/(?P<layer>.+)/(?P<number>\w+)")


class Line(NamedTuple):
    """One curve of a panel."""

    label: str
    curve: Curve
    colour: str
    style: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's flags."""
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT", help="a run's name, or its folder")
    parser.add_argument(
        "-o", dest="file", type=Path, default=Path("plot.png"), metavar="PNG", help="what to write (default: plot.png)"
    )


def run(options: argparse.Namespace) -> None:
    """Draw the runs' curves and write the picture.

    Raises:
        ImportError: if matplotlib or TensorBoard is not installed.
        FileNotFoundError: if there is no such run, or it has no log.
        ValueError: if no run was trained with CLPLoss, or two have one name.
    """
    check_matplotlib()
    _check_file(options.file)
    runs = [read_run(each) for each in options.experiments]
    _check(runs)
    for each in runs:
        if not _has_clp(each):
            print(f"'{each.name}' has no clp_ numbers: it was trained without CLPLoss.")
    make_folder(options.file.parent, "-o")
    write_image(Image.fromarray(pixels(draw_curves(runs))), options.file)
    print(f"picture  {options.file}")


def _check_file(path: Path) -> None:
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"Flag `-o` must name a picture's file, such as plot.png, but got '{path}'.")


def _check(runs: Sequence[Run]) -> None:
    names = [each.name for each in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"Argument `EXPERIMENT` must name each run once, but got {names}.")
    if not any(_has_clp(each) for each in runs):
        tags = sorted({tag for each in runs for tag in each.curves})
        raise ValueError(
            f"Argument `EXPERIMENT` must name a run that was trained with CLPLoss, but {names} have only {tags}. Its "
            "block is `perceptual_opt: {type: CLPLoss}`, and the run must be started with clp-basicsr, or have "
            "`import clp_basicsr` above the imports of BasicSR."
        )


def _has_clp(run: Run) -> bool:
    return any(tag.startswith(("clp_", "clp/")) for tag in run.curves)


def draw_curves(runs: Sequence[Run]) -> Figure:
    """Return a figure with a panel for each loss, each ``clp_`` number, each metric, and each number of the layers.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    panels = {tag: _lines(runs, tag) for tag in _whole_tags(runs)} | _layer_panels(runs)
    rows = math.ceil(len(panels) / _COLUMNS)
    figure = new_figure(5.2 * _COLUMNS, 2.9 * rows + 0.9)
    figure.suptitle(
        f"Training curves by iteration; from {_SMOOTHED_FROM} points on pale as logged, strong their running mean",
        fontsize=11,
    )
    places: Any = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True)
    for place, (title, lines) in zip(places.flat, panels.items()):
        _panel(place, title, lines)
    for place in places.flat[len(panels) :]:
        place.axis("off")
    return figure


def _whole_tags(runs: Sequence[Run]) -> list[str]:
    """Return the tags that are of no layer: losses, ``clp_``, then the rest."""
    tags = {tag for each in runs for tag in each.curves if not _OF_A_LAYER.fullmatch(tag)}
    return sorted(tags - _LEFT_OUT, key=lambda tag: (not tag.startswith("losses/"), not tag.startswith("clp_"), tag))


def _lines(runs: Sequence[Run], tag: str) -> list[Line]:
    return [
        Line(each.name, each.curves[tag], f"C{place}", "-") for place, each in enumerate(runs) if tag in each.curves
    ]


def _layer_panels(runs: Sequence[Run]) -> dict[str, list[Line]]:
    """Return a panel for each of `_LAYERS`: a colour for each layer, a style for each run."""
    panels: dict[str, list[Line]] = {f"{name}, by layer": [] for name in _LAYERS}
    colours: dict[str, str] = {}
    styles = itertools.cycle(_STYLES)
    for each, style in zip(runs, styles):
        for tag, curve in each.curves.items():
            found = _OF_A_LAYER.fullmatch(tag)
            if found is None or found["number"] not in _LAYERS:
                continue
            colour = colours.setdefault(found["layer"], f"C{len(colours)}")
            label = found["layer"] if len(runs) == 1 else f"{found['layer']}, {each.name}"
            panels.setdefault(f"{found['loss']}{found['number']}, by layer", []).append(
                Line(label, curve, colour, style)
            )
    return {title: lines for title, lines in panels.items() if lines}


def _panel(place: Axes, title: str, lines: Sequence[Line]) -> None:
    for line in lines:
        iterations, values = line.curve
        label = line.label.replace("_", " _", 1) if line.label.startswith("_") else line.label  # else it is left out
        look: dict[str, Any] = {"color": line.colour, "linestyle": line.style}
        if len(values) < _SMOOTHED_FROM:
            place.plot(iterations, values, label=label, marker=".", **look)
        else:
            place.plot(iterations, values, alpha=0.25, linewidth=0.8, **look)
            place.plot(iterations, running_mean(values), label=label, **look)
    place.set_title(title, fontsize=10, parse_math=False)
    place.tick_params(labelsize=_SMALL, labelbottom=True)
    place.grid(alpha=0.3)
    legend = place.legend(fontsize=7 if len(lines) > 4 else _SMALL, ncols=math.ceil(len(lines) / _LEGEND_ROWS))
    for text in legend.get_texts():
        text.set_parse_math(False)


def running_mean(values: Sequence[float]) -> NDArray[np.float64]:
    """Return at each place the mean of the finite values up to it, at most the last twentieth of all."""
    window = max(2, len(values) // 20)
    curve = np.asarray(values, dtype=np.float64)
    return np.array([_mean_of_finite(curve[max(0, stop - window) : stop]) for stop in range(1, len(curve) + 1)])


def _mean_of_finite(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
