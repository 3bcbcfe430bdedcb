"""A study's results as pictures: differences with their intervals, and SR side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.intervals import interval
from benchmarks.study.judges import JUDGES
from benchmarks.study.results import Results, arms, differences, groups
from benchmarks.study.tables import PULL, title

_PLOTTED = ("lite2", "lite1", "vgg16", "psnr", "haarpsi", "niqe", "artefact")
_COLOURS = {1: "tab:green", -1: "tab:red", 0: "tab:grey"}


def plot(results: Results, path: Path) -> None:
    """Draw what each arm changes against pull only: a row of panels for each group, a panel for each judge."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [group for group in groups(results) if PULL in arms(results, group)]
    if not shown:
        return  # a matrix without that arm has nothing to be compared with
    trained = next(iter(next(iter(results.values())).values()))
    judges = [judge for judge in _PLOTTED if judge in trained]
    figure, panels = pyplot.subplots(
        len(shown), len(judges), figsize=(3 * len(judges), 2.9 * len(shown)), squeeze=False, layout="constrained"
    )
    for row, group in zip(panels, shown):
        for panel, judge in zip(row, judges):
            _panel(panel, results, group, judge)
        row[0].set_ylabel(title(group).replace(", ", "\n"))
        for panel in row[1:]:
            panel.set_yticklabels([])
    figure.suptitle("Difference to pull only, 95 % intervals; green: better, red: worse, grey: neither")
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _panel(panel: Any, results: Results, group: tuple[float, bool], judge: str) -> None:
    compared = [arm for arm in arms(results, group) if arm != PULL]
    for place, arm in enumerate(compared):
        pairs = differences(results, group, arm, PULL, judge)
        if pairs.size:
            found = interval(pairs)
            panel.plot([found.low, found.high], [place, place], color=_COLOURS[found.side * JUDGES[judge].better])
            panel.plot(found.mean, place, "o", color=_COLOURS[found.side * JUDGES[judge].better])
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_yticks(range(len(compared)), compared)
    panel.invert_yaxis()
    panel.set_title(JUDGES[judge].title + {1: ", higher is better", -1: ", lower is better"}[JUDGES[judge].better])
    panel.locator_params(axis="x", nbins=4)


def side_by_side(rows: Sequence[Mapping[str, NDArray[np.uint8]]], path: Path) -> None:
    """Draw rows of crops ``(H, W, 3)`` under their names."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = max(len(row) for row in rows)
    figure, panels = pyplot.subplots(
        len(rows), columns, figsize=(2.2 * columns, 2.45 * len(rows)), squeeze=False, layout="constrained"
    )
    for panel in panels.flat:
        panel.axis("off")
    for row, crops in zip(panels, rows):
        for panel, (name, crop) in zip(row, crops.items()):
            panel.imshow(crop, interpolation="nearest")
            panel.set_title(name, fontsize=9)
    figure.savefig(path, dpi=60)
    pyplot.close(figure)
