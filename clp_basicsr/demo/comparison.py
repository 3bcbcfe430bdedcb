"""The demo's picture: bicubic, SR and GT side by side, with zoomed crops and the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from clp_basicsr.demo.photos import SCALE
from clp_basicsr.images import resize_to
from clp_basicsr.loss import CLPLoss
from clp_basicsr.pictures.files import as_bytes, read_image, write_image

_CROP = 72
_ZOOM = 4
_GAP = 12
_TEXT_HEIGHT = 48
_COLUMNS = ("bicubic", "SR", "GT")


class Numbers(NamedTuple):
    """How near an image is to GT."""

    psnr: float
    ssim: float
    pull: float

    def __str__(self) -> str:
        return f"PSNR {self.psnr:.2f} dB   SSIM {self.ssim:.4f}   clp_pull {self.pull:.3f}"


class Comparison(NamedTuple):
    """One validation photo: images ``(1, 3, H, W)`` in [0, 1] by column, and their numbers."""

    name: str
    images: dict[str, Tensor]
    numbers: dict[str, Numbers]


def compare(network: nn.Module, loss: CLPLoss, folder: Path) -> list[Comparison]:
    """Run ``network`` on the LR images in ``folder/lr`` and measure against ``folder/gt``."""
    return [_compare_one(network, loss, path) for path in sorted((folder / "gt").glob("*.png"))]


@torch.no_grad()
def _compare_one(network: nn.Module, loss: CLPLoss, path: Path) -> Comparison:
    gt, lr = read_image(path), read_image(path.parents[1] / "lr" / path.name)
    sr = network(lr).clamp(0, 1)
    images = {"bicubic": resize_to(lr, (gt.shape[-2], gt.shape[-1])), "SR": sr, "GT": gt}
    numbers = {name: _measure(images[name], gt, lr, loss) for name in ("bicubic", "SR")}
    return Comparison(path.stem, images, numbers)


def _measure(image: Tensor, gt: Tensor, lr: Tensor, loss: CLPLoss) -> Numbers:
    from basicsr.metrics import calculate_psnr, calculate_ssim

    first, second = as_bytes(image), as_bytes(gt)
    loss(image, gt, lr)
    summary = loss.take_summary()
    assert summary is not None
    return Numbers(
        psnr=float(calculate_psnr(first, second, crop_border=4)),
        ssim=float(calculate_ssim(first, second, crop_border=4)),
        pull=float(summary.pull),
    )


def draw(comparisons: Sequence[Comparison], path: Path, title: str) -> None:
    """Write the picture to ``path``: a row for each photo, its crop where LR shows the most structure."""
    rows = [_row(comparison) for comparison in comparisons]
    width = max(row.width for row in rows)
    sheet = Image.new("RGB", (width, _TEXT_HEIGHT + sum(row.height for row in rows)), "white")
    ImageDraw.Draw(sheet).text((_GAP, _GAP), title, fill="black", font=ImageFont.load_default(20))
    top = _TEXT_HEIGHT
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    write_image(sheet, path)


def _row(comparison: Comparison) -> Image.Image:
    side = _CROP * _ZOOM
    top, left = _most_structured(comparison.images["GT"])
    whole = Image.fromarray(as_bytes(comparison.images["GT"]))
    ImageDraw.Draw(whole).rectangle((left, top, left + _CROP, top + _CROP), outline="red", width=3)
    whole.thumbnail((side * 3 // 2, side))
    row = Image.new("RGB", (side * 3 // 2 + 3 * side + 5 * _GAP, side + _TEXT_HEIGHT + _GAP), "white")
    row.paste(whole, (_GAP, 0))
    pen = ImageDraw.Draw(row)
    for column, name in enumerate(_COLUMNS):
        x = side * 3 // 2 + 2 * _GAP + column * (side + _GAP)
        crop = comparison.images[name][..., top : top + _CROP, left : left + _CROP]
        row.paste(Image.fromarray(as_bytes(crop)).resize((side, side), Image.Resampling.NEAREST), (x, 0))
        _caption(pen, (x, side + 4), name, comparison.numbers.get(name))
    return row


def _caption(pen: Any, place: tuple[int, int], name: str, numbers: Numbers | None) -> None:
    details = "" if numbers is None else str(numbers)
    pen.text(place, name, fill="black", font=ImageFont.load_default(18))
    pen.text((place[0], place[1] + 22), details, fill="black", font=ImageFont.load_default(12))


def _most_structured(gt: Tensor) -> tuple[int, int]:
    """Return top and left of the crop with the most gradient energy at the size of LR."""
    grey = nn.functional.avg_pool2d(gt.mean(1, keepdim=True), SCALE)
    energy = grey.diff(dim=-1)[..., 1:, :].square() + grey.diff(dim=-2)[..., 1:].square()
    sums = nn.functional.avg_pool2d(energy, _CROP // SCALE, stride=1)[0, 0]
    top, left = divmod(int(sums.argmax()), sums.shape[-1])
    return top * SCALE, left * SCALE
