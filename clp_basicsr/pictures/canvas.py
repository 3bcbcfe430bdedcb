"""matplotlib, where it is installed: figures without a window and without anything global."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clp_basicsr.messages import needs_package
from clp_basicsr.whole_files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100


def check_matplotlib() -> None:
    """Make sure that figures can be drawn.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            needs_package(
                "A picture",
                "matplotlib",
                "Install the extra that brings it, in a checkout: pip install '.[pictures]'. Or anywhere: pip install "
                "matplotlib",
            )
        )


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches; it draws with Agg, whatever the backend, and is freed like any object.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    layout: Any = figure.get_layout_engine()
    layout.set(h_pad=0.09)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as it is drawn, PNG whatever the file is called.

    Raises:
        OSError: if it cannot be written; an earlier file of that name is left as it was.
    """
    with whole_file(path) as file:
        figure.savefig(file, format="png")


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Return the drawn figure as RGB ``(H, W, 3)``."""
    canvas: Any = figure.canvas
    figure.draw_without_rendering()  # the layout knows the size of tick labels only after they were drawn once
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
