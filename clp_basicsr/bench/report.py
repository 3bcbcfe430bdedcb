"""The results of a benchmark as JSON, as a table and as a plot."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from clp_basicsr.bench.measuring import Spread
from clp_basicsr.pictures.canvas import new_figure, save_figure
from clp_basicsr.whole_files import write_text


@dataclass(frozen=True)
class Row:
    """One contender at one size."""

    name: str
    batch: int
    size: int
    seconds: Spread
    rival: str
    ratio: Spread | None
    """Its time over its rival's, pair by pair; None where the rival was not measured."""
    peak: int
    """Bytes above the weights."""
    memory_ratio: float | None
    queued: Spread | None = None
    """As ``ratio``, where the CPU is ahead; see `clp_basicsr.bench.measuring.rounds`. None without a GPU."""


def environment(device: torch.device) -> dict[str, Any]:
    """Return what the numbers depend on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "date": datetime.date.today().isoformat(),
        "device": gpu or f"{device.type}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown."""
    heads = ["loss", "batch, crop", "ms", "time over …", "", "peak MB", "memory"]
    on_gpu = any(row.queued is not None for row in rows)
    if on_gpu:
        heads.insert(5, "GPU alone")
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for row in rows:
        memory = "" if row.memory_ratio is None else f"{row.memory_ratio:.2f}"
        milliseconds, megabytes = _digits(row.seconds.median * 1e3), _digits(row.peak / 1e6)
        rival = "" if row.ratio is None else row.rival
        cells = [row.name, f"{row.batch}, {row.size}", milliseconds, rival, _ratio(row.ratio), megabytes, memory]
        if on_gpu:
            cells.insert(5, _ratio(row.queued))
        lines.append(_line(cells))
    return "\n".join(lines)


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value < 0.01 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def write_json(file: Path, about: dict[str, Any], rows: Sequence[Row], **more: object) -> None:
    """Write everything to a file."""
    numbers = [
        {**asdict(row), "seconds": row.seconds._asdict(), "ratio": _dict(row.ratio), "queued": _dict(row.queued)}
        for row in rows
    ]
    write_text(file, json.dumps({**about, "rows": numbers, **more}, indent=1) + "\n")


def compared(rows: Sequence[Row]) -> list[Row]:
    """Return those that were measured beside a rival."""
    return [row for row in rows if row.ratio is not None and row.name != row.rival]


def plot(file: Path, rows: Sequence[Row]) -> None:
    """Draw the ratios with their quartiles.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    shown = compared(rows)
    figure = new_figure(8, 1 + 0.35 * len(shown))
    axes = figure.add_subplot()
    for place, row in enumerate(reversed(shown)):
        assert row.ratio is not None
        axes.plot([row.ratio.low, row.ratio.high], [place, place], color="tab:blue")
        axes.plot([row.ratio.median], [place], "o", color="tab:blue")
    labels = [f"{row.name} / {row.rival} ({row.batch}, {row.size})" for row in reversed(shown)]
    axes.set_yticks(range(len(shown)), labels)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("time of a step, ratio")
    save_figure(figure, file)


def _dict(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else spread._asdict()
