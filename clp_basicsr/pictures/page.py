"""The inspection as one HTML file: a slider between the images, the numbers, and the sheet."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clp_basicsr.inspection import Inspection
from clp_basicsr.pictures.files import as_bytes
from clp_basicsr.pictures.sheet import notes, summary

_TEMPLATE = Path(__file__).with_name("page.html")


def page(seen: Inspection, title: str, titles: Mapping[str, str], sheet: NDArray[np.uint8]) -> str:
    """Return a page that needs no other file and no network.

    Args:
        seen: what to show.
        title: what the images are.
        titles: what to call each of ``seen.images``.
        sheet: the drawn sheet ``(H, W, 3)``.
    """
    images = "\n".join(
        f'<img id="image-{key}" alt="{key}" src="{_data_uri(as_bytes(image[None]))}">'
        for key, image in seen.images.items()
    )
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        summary=html.escape(summary(seen)),
        notes="\n".join(f"<p>{html.escape(note)}</p>" for note in notes(seen)),
        left_choices=_choices(titles, "SR"),
        right_choices=_choices(titles, "GT"),
        images=images,
        table=_table(seen),
        sheet=_data_uri(sheet),
    )


def _choices(titles: Mapping[str, str], chosen: str) -> str:
    return "".join(
        f'<option value="{key}"{" selected" if key == chosen else ""}>{html.escape(text)}</option>'
        for key, text in titles.items()
    )


def _table(seen: Inspection) -> str:
    head = ("layer", "d(sr, gt)", "d(sr, lr)", "pull", "push", "share of the loss", "share of the gradient")
    rows = ["".join(f"<th>{each}</th>" for each in head)]
    for layer, view in seen.layers.items():
        own = view.numbers
        numbers = (f"{own.to_target:.4g}", f"{own.to_negative:.4g}", f"{own.pull:.3f}", f"{own.push:.3f}")
        cells = (html.escape(layer), *numbers, f"{view.loss_share:.1%}", f"{view.gradient_share:.1%}")
        rows.append("".join(f"<td>{each}</td>" for each in cells))
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _data_uri(image: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
