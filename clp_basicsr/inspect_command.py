"""``clp-basicsr inspect``: from files and flags to the sheet and the page."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from torch import Tensor

from clp_basicsr.extractors import canonical_name
from clp_basicsr.hosts.options.encoding import read_text
from clp_basicsr.images import resize_to
from clp_basicsr.inspection import Inspection, inspect
from clp_basicsr.loss import MODEL, CLPLoss
from clp_basicsr.messages import reason
from clp_basicsr.pictures.canvas import check_matplotlib, pixels
from clp_basicsr.pictures.files import make_folder, read_image, write_image
from clp_basicsr.pictures.page import page
from clp_basicsr.pictures.sheet import draw_sheet, notes, summary
from clp_basicsr.presets import PRESETS
from clp_basicsr.tiles import SIZE
from clp_basicsr.whole_files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's flags."""
    parser.add_argument("--gt", type=Path, required=True, metavar="PNG", help="ground truth")
    parser.add_argument("--lr", type=Path, required=True, metavar="PNG", help="low-quality image")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--sr", type=Path, metavar="PNG", help="super-resolved image (default: LR, bicubic)")
    source.add_argument("--checkpoint", type=Path, metavar="PTH", help="make SR with the `network_g` of -opt")
    parser.add_argument("-opt", type=Path, metavar="YML", help="BasicSR option file: its CLPLoss and its network_g")
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="PACKAGE", help="as in train")
    parser.add_argument("--model", help="the loss's network (default: that of -opt, else efficientnet_lite0)")
    parser.add_argument("--weights", help="its weights: a file, a checkpoint folder, or 'random'")
    parser.add_argument("--layers", nargs="+", metavar="LAYER[=WEIGHT]", help="layers, each of weight 1 if not given")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="any other keyword of CLPLoss, as in YAML"
    )
    parser.add_argument(
        "--tile", type=int, default=SIZE, help="larger images are seen in tiles of this size (default: %(default)s)"
    )
    parser.add_argument(
        "-o", dest="folder", type=Path, default=Path(), metavar="FOLDER", help="where to write (default: here)"
    )


def run(options: argparse.Namespace) -> None:
    """Inspect one image and write ``inspect_NAME.png`` and ``inspect_NAME.html``.

    Raises:
        ImportError: if matplotlib or what a network needs is not installed.
        FileNotFoundError: if a file is not there.
        TypeError: for a value of the wrong type.
        ValueError: for a value that is not allowed, or images that do not fit.
    """
    check_matplotlib()
    file = _option_file(options.opt)
    gt, lr = _read(options.gt, "--gt"), _read(options.lr, "--lr")
    if options.checkpoint is not None and (file.get("network_g") or {}).get("num_in_ch") == 1:
        from clp_basicsr.hosts.basicsr_network import luma

        gt, lr = luma(gt), luma(lr)
    loss = CLPLoss(**_keywords(options, file))
    sr, sr_is = _super_resolved(options, file, gt, lr, range_norm=loss.range_norm)
    given = (_ranged(each, loss.range_norm) for each in (sr, gt, lr))
    seen = inspect(loss, *given, tile=options.tile)
    _write(seen, options.folder, options.gt.stem, sr_is)


def _write(seen: Inspection, folder: Path, name: str, sr_is: str) -> None:
    make_folder(folder, "-o")
    png, page_file = folder / f"inspect_{name}.png", folder / f"inspect_{name}.html"
    sheet = pixels(draw_sheet(seen, name, sr_is))
    titles = {"LR": "LR, upsampled", "SR": sr_is, "GT": "GT"}
    text = page(seen, name, titles, sheet)
    write_image(Image.fromarray(sheet), png)
    write_text(page_file, text)
    print(summary(seen))
    for note in notes(seen):
        print(note)
    print(f"picture  {png}\npage     {page_file}")


def _option_file(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    if not path.is_file():
        raise FileNotFoundError(f"Flag `-opt` must name a YAML file, but there is none at '{path}'.")
    try:
        read = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"Flag `-opt` must name a YAML file, but '{path}' cannot be read: {error}") from error
    if not isinstance(read, Mapping):
        raise ValueError(f"Flag `-opt` must name a BasicSR option file, but '{path}' holds no `key: value` lines.")
    return read


def _keywords(options: argparse.Namespace, file: Mapping[str, Any]) -> dict[str, Any]:
    """Return CLPLoss's keywords: those of the file, overruled by the flags."""
    keywords = _block(options.opt, file)
    preset: Mapping[str, Any] = PRESETS.get(str(keywords.get("preset")), {})
    before = keywords.get("model", preset.get("model", MODEL))
    if options.model is not None and canonical_name(options.model) != canonical_name(before):
        for network_bound in ("weights", "layer_weights"):
            keywords.pop(network_bound, None)
    given = {"model": options.model, "weights": options.weights, "layer_weights": _layers(options.layers)}
    keywords |= {name: value for name, value in given.items() if value is not None}
    keywords |= dict(_pair("--set", each) for each in options.set)
    if options.opt is None and "preset" not in keywords:
        keywords.setdefault("model", "efficientnet_lite0")
    return {**keywords, "diagnostics": False}


def _block(path: Path | None, file: Mapping[str, Any]) -> dict[str, Any]:
    if path is None:
        return {}
    sections = file.get("train") or {}
    blocks = [each for each in sections.values() if isinstance(each, Mapping) and each.get("type") == "CLPLoss"]
    if not blocks:
        raise ValueError(
            f"Flag `-opt` must name an option file with a block `type: CLPLoss` below `train:`, but '{path}' has none."
        )
    return {name: value for name, value in blocks[0].items() if name != "type"}


def _layers(given: Sequence[str] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return dict(_pair("--layers", each if "=" in each else f"{each}=1.0") for each in given)


def _pair(flag: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"Flag `{flag}` must be followed by KEY=VALUE, but got '{text}'.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"Flag `{flag}` must be followed by a value as in YAML, but got '{text}'.") from error


def _super_resolved(
    options: argparse.Namespace, file: Mapping[str, Any], gt: Tensor, lr: Tensor, *, range_norm: bool
) -> tuple[Tensor, str]:
    """Return SR ``(1, 3, H, W)``, about [0, 1], and where it comes from."""
    if options.sr is not None:
        return _read(options.sr, "--sr"), f"SR: {options.sr.name}"
    if options.checkpoint is None:
        return resize_to(lr, (gt.shape[-2], gt.shape[-1])), "SR: bicubic, since none was given"
    if options.opt is None:
        raise ValueError("Flag `--checkpoint` must stand beside `-opt FILE.yml`, which says what network it is of.")
    from clp_basicsr.hosts.basicsr_network import load_network, super_resolve

    network = load_network(file, options.checkpoint, options.imports)
    window = file["network_g"].get("window_size", 1)
    sr = super_resolve(network, _ranged(lr, range_norm), window if isinstance(window, int) else 1)
    return ((sr + 1) / 2 if range_norm else sr), f"SR: {options.checkpoint.name}"


def _ranged(image: Tensor, range_norm: bool) -> Tensor:
    """Return an image in [0, 1] in the value range of the loss and the network that it trained."""
    return image * 2 - 1 if range_norm else image


def _read(path: Path, flag: str) -> Tensor:
    """Return an image file as RGB ``(1, 3, H, W)`` in [0, 1]."""
    if not path.is_file():
        raise FileNotFoundError(f"Flag `{flag}` must name an image file, but there is none at '{path}'.")
    try:
        return read_image(path)
    except OSError as error:
        raise ValueError(
            f"Flag `{flag}` must name an image file, but '{path}' cannot be read: {reason(error)}"
        ) from error
