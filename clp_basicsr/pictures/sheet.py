"""One image as the loss sees it, on one sheet: the images, the gradient, the layers' shares and maps."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clp_basicsr.inspection import Inspection, LayerView
from clp_basicsr.pictures.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMN = 3.4  # inches
_SMALL = 8
_DISTANCES = {
    "l2": "d: root mean square over channels of the difference there, times the root of the number of positions. The "
    "root mean square over a map is that of the layer's distances, in their units.",
    "l1": "d: mean over channels of the absolute difference there, times the number of positions. The mean over a map "
    "is that of the layer's distances, in their units.",
    "cosine": "d: 1 - cosine of the feature vectors there.",
}
_PARTS = (
    "pull, push: each position's part of the layer's number, times the number of positions: the mean over a map is the "
    "number in its title, the loss's own. Blue push: SR is further from the negative there than GT is. Colours end at "
    "the 99th percentile (pointed bars). d has one scale per layer; all pulls and pushes have one, all gradients (norm "
    "over colours) another."
)


def draw_sheet(seen: Inspection, title: str, sr_is: str = "SR") -> Figure:
    """Return a figure: a row with images and shares, then a row of four maps for each layer.

    Args:
        seen: what to draw.
        title: what the images are, above everything.
        sr_is: where the SR image comes from, above it.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    height, width = seen.images["GT"].shape[-2:]
    row = min(max(_COLUMN * 0.8 * height / width, 1.6), 5.0) + 0.45
    figure = new_figure(5 * _COLUMN, row * (1 + len(seen.layers)) + 1.3)
    figure.suptitle(f"{title}\n{summary(seen)}", fontsize=11, parse_math=False)
    figure.supxlabel(_footer(seen), fontsize=_SMALL, x=0.01, ha="left")
    axes: Any = figure.subplots(1 + len(seen.layers), 5, squeeze=False)
    titles = ("LR, upsampled", sr_is, "GT")
    for place, name, image in zip(axes[0], titles, seen.images.values()):
        _image(place, image, name)
    steepest = _limit([seen.gradient])
    _gradient(figure, axes[0][3], seen.gradient, "gradient of the loss at SR", steepest)
    _shares(axes[0][4], seen)
    limit = _limit([each for view in seen.layers.values() for each in view.maps[2:]])
    for places, (layer, view) in zip(axes[1:], seen.layers.items()):
        _layer(figure, places, layer, view, limit, (height, width))
        _gradient(figure, places[4], view.gradient, f"{layer}: its part of the gradient", steepest)
    return figure


def summary(seen: Inspection) -> str:
    """Return the inspection's totals in one line."""
    ratio = "" if np.isnan(seen.gradient_ratio) else f", its gradient at SR {seen.gradient_ratio:.3g} x that of L1"
    advice = f" (1:1 at loss_weight {1 / seen.gradient_ratio:.1e})" if seen.gradient_ratio > 0 else ""
    return f"{seen.network}, {seen.criterion}, {seen.distance}: loss {seen.loss:.4g} at weight 1{ratio}{advice}"


def notes(seen: Inspection) -> list[str]:
    """Return what a reader must know about how the inspection was made."""
    said = []
    if seen.tiles > 1:
        said.append(
            f"The image went through the network in {seen.tiles} overlapping tiles, each without the others: a "
            "transformer attends within a tile only."
        )
    if seen.left_out:
        said.append(f"Negatives left out, since only a training run has them: {', '.join(seen.left_out)}.")
    if seen.images["SR"].equal(seen.images["GT"]):
        said.append("SR equals GT: the loss is 0, and there is nothing to see. Where LR is as large as GT, give --sr.")
    return said


def _footer(seen: Inspection) -> str:
    lines = [*notes(seen), _DISTANCES[seen.distance], _PARTS]
    return "\n".join(textwrap.fill(line, 230) for line in lines)


def _image(place: Axes, image: Tensor, title: str) -> None:
    place.imshow(image.permute(1, 2, 0).numpy())
    _bare(place, title)


def _gradient(figure: Figure, place: Axes, values: Tensor, title: str, top: float) -> None:
    drawn = place.imshow(values.numpy(), cmap="magma", vmin=0, vmax=top, interpolation="nearest")
    _bare(place, title)
    _bar(figure, drawn, place, extend="max")


def _shares(place: Axes, seen: Inspection) -> None:
    layers = list(seen.layers.values())
    at = np.arange(len(layers))
    for offset, name, values in (
        (-0.2, "loss", [view.loss_share for view in layers]),
        (0.2, "gradient at SR", [view.gradient_share for view in layers]),
    ):
        bars = place.barh(at + offset, [100 * value for value in values], 0.4, label=name)
        place.bar_label(bars, fmt="%.0f %%", fontsize=_SMALL, padding=2)
    place.set_yticks(at, list(seen.layers), fontsize=_SMALL)
    place.invert_yaxis()
    place.margins(x=0.2)
    place.tick_params(axis="x", labelsize=_SMALL)
    place.set_title("what each layer contributes (%)", fontsize=10)
    place.legend(fontsize=_SMALL, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)


def _layer(figure: Figure, places: Any, layer: str, view: LayerView, limit: float, size: tuple[int, int]) -> None:
    top = _limit([view.maps.to_target, view.maps.to_negative])
    for place, values, name, value in (
        (places[0], view.maps.to_target, "d(sr, gt)", view.numbers.to_target),
        (places[1], view.maps.to_negative, "d(sr, lr)", view.numbers.to_negative),
    ):
        drawn = _map(place, values, f"{layer}: {name} = {value:.4g}", size, cmap="viridis", vmin=0, vmax=top)
    _bar(figure, drawn, places[:2], extend="max")
    for place, values, name, value in (
        (places[2], view.maps.pull, "pull", view.numbers.pull),
        (places[3], view.maps.push, "push", view.numbers.push),
    ):
        drawn = _map(place, values, f"{layer}: {name} = {value:.3f}", size, cmap="RdBu_r", vmin=-limit, vmax=limit)
    _bar(figure, drawn, places[2:4], extend="both")


def _map(place: Axes, values: Tensor, title: str, size: tuple[int, int], **colours: Any) -> Any:
    drawn = place.imshow(values.numpy(), extent=(0, size[1], size[0], 0), interpolation="nearest", **colours)
    _bare(place, title)
    return drawn


def _bar(figure: Figure, drawn: Any, places: Any, extend: str) -> None:
    bar: Any = figure.colorbar(drawn, ax=places, extend=extend, shrink=0.9, pad=0.02)
    bar.ax.tick_params(labelsize=_SMALL)
    bar.ax.yaxis.get_offset_text().set_fontsize(_SMALL)
    bar.ax.locator_params(nbins=5)
    bar.formatter.set_powerlimits((-3, 4))


def _bare(place: Axes, title: str) -> None:
    place.set_title(title, fontsize=10, parse_math=False)
    place.set_xticks([])
    place.set_yticks([])


def _limit(maps: list[Tensor]) -> float:
    """Return what 99 % of the values of some maps do not exceed, each map counting alike; above 0."""
    tops = [
        float(torch.quantile(each.abs().flatten().float()[:: max(1, each.numel() // 1_000_000)], 0.99)) for each in maps
    ]
    return max(tops) or 1.0
