"""Feature maps of an image that is too large for one pass, and the gradient back through them.

An image is cut into tiles that overlap; of each tile's feature maps only the core is kept, and the
cores make up the maps of the whole. Convolutions give what one pass would give, as far as the
overlap covers what a position sees, and where the image has whole positions alone: at the right and
lower edge it is reflected to them, where one pass may drop the pixels that are left over. A
transformer sees each tile alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clp_basicsr import arguments

Place = tuple[slice, slice]
Extract = Callable[[Tensor], dict[str, Tensor]]

SIZE = 512
"""Pixels of a tile's side."""
OVERLAP = 96
"""Pixels that a tile sees beyond its core, on each side."""
_ALL = slice(None), slice(None)
_PROBE = 224  # a multiple of every network's stride and patch: 2, 4, 8, 14, 16, 32


class Span(NamedTuple):
    """One dimension of a tile, in pixels of the image."""

    start: int
    stop: int
    core_start: int
    core_stop: int


class Tile(NamedTuple):
    """Rows and columns of a tile."""

    rows: Span
    columns: Span


class TiledNetwork:
    """A network that sees at most ``size`` pixels at a time; smaller images it sees whole, in one pass."""

    def __init__(self, extract: Extract, image: Tensor, size: int = SIZE, overlap: int = OVERLAP) -> None:
        """Cut images like ``image`` into tiles.

        Args:
            extract: returns the feature maps of images ``(N, 3, h, w)``, by layer.
            image: one of the images ``(N, 3, H, W)``.
            size: height and width of a tile in pixels.
            overlap: pixels around the core, on each side.

        Raises:
            ValueError: if a tile has no core, or the network's maps do not divide an image evenly.
        """
        self.extract = extract
        self.height, self.width = image.shape[-2:]
        arguments.count("tile", size)
        arguments.count("overlap", overlap, zero_allowed=True)
        self.tiles = [Tile(_whole(self.height), _whole(self.width))]
        self.padding = (0, 0)
        if max(self.height, self.width) > size:
            step = _common_step(extract, image)
            self.padding = (-self.width % step, -self.height % step)
            rows, columns = (
                list(spans(length, size // step * step, math.ceil(overlap / step) * step))
                for length in (self.height + self.padding[1], self.width + self.padding[0])
            )
            self.tiles = [Tile(row, column) for row in rows for column in columns]

    @torch.no_grad()
    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps of images ``(N, 3, H, W)``, by layer."""
        padded = self._padded(images)
        whole: dict[str, Tensor] = {}
        for tile in self.tiles:
            for layer, features in self.extract(_cut(padded, tile)).items():
                if len(self.tiles) == 1:
                    whole[layer] = features
                    continue
                if layer not in whole:
                    size = [length // _stride(tile, features) for length in padded.shape[-2:]]
                    whole[layer] = features.new_empty((*features.shape[:-2], *size))
                inside, outside = _places(tile, features)
                whole[layer][(..., *outside)] = features[(..., *inside)]
        return whole

    def gradients(self, images: Tensor, at_features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Carry gradients at the maps of ``images`` back to the images ``(N, 3, H, W)``, each layer for itself."""
        padded = self._padded(images.detach())
        whole = {layer: torch.zeros_like(padded) for layer in at_features}
        for tile in self.tiles:
            part = _cut(padded, tile).clone().requires_grad_()
            with torch.enable_grad():
                maps = self.extract(part)
            for layer, features in maps.items():
                inside, outside = _places(tile, features) if len(self.tiles) > 1 else (_ALL, _ALL)
                wanted = torch.zeros_like(features)
                wanted[(..., *inside)] = at_features[layer][(..., *outside)].to(features)
                (gradient,) = torch.autograd.grad(features, part, wanted, retain_graph=True)
                _cut(whole[layer], tile).add_(gradient)
        return {layer: self._folded(images, gradient) for layer, gradient in whole.items()}

    def crop(self, values: Tensor) -> Tensor:
        """Cut off what a map ``(…, h, w)`` shows of the padding."""
        rows, columns = (
            math.ceil(size * length / (length + pad))
            for size, length, pad in zip(values.shape[-2:], (self.height, self.width), self.padding[::-1])
        )
        return values[..., :rows, :columns]

    def _padded(self, images: Tensor) -> Tensor:
        right, bottom = self.padding
        return F.pad(images, (0, right, 0, bottom), mode="reflect") if right or bottom else images

    def _folded(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Bring the gradient at the padding back to the pixels that it reflects."""
        leaf = torch.zeros_like(images).requires_grad_()
        with torch.enable_grad():
            (folded,) = torch.autograd.grad(self._padded(leaf), leaf, gradient)
        return folded


def spans(length: int, size: int, overlap: int) -> Iterator[Span]:
    """Yield spans of at most ``size`` whose cores follow each other from 0 to ``length``.

    Raises:
        ValueError: if the overlap leaves no core.
    """
    if length <= size:
        yield _whole(length)
        return
    if size <= 2 * overlap:
        raise ValueError(
            f"Argument `tile` must be more than {2 * overlap} pixels, twice the overlap, but a tile has {size}. "
            "Use larger tiles."
        )
    core_start = 0
    while core_start < length:
        start = max(0, core_start - overlap)
        stop = min(start + size, length)
        core_stop = length if stop == length else stop - overlap
        yield Span(start, stop, core_start, core_stop)
        core_start = core_stop


def _whole(length: int) -> Span:
    return Span(0, length, 0, length)


def _common_step(extract: Extract, image: Tensor) -> int:
    """Return the pixels that every layer's map divides evenly."""
    with torch.no_grad():
        maps = extract(image.new_zeros(1, 3, _PROBE, _PROBE))
    steps = {_PROBE / side for features in maps.values() for side in features.shape[-2:]}
    if any(step % 1 for step in steps):
        raise ValueError(
            f"Images larger than a tile must go through a network whose maps divide them evenly, but this one makes "
            f"{sorted(_PROBE / step for step in steps)} positions of {_PROBE} pixels. Use a smaller image, or larger "
            "tiles (--tile)."
        )
    return math.lcm(*(int(step) for step in steps))


def _stride(tile: Tile, features: Tensor) -> int:
    return (tile.rows.stop - tile.rows.start) // features.shape[-2]


def _cut(images: Tensor, tile: Tile) -> Tensor:
    return images[..., tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop]


def _places(tile: Tile, features: Tensor) -> tuple[Place, Place]:
    """Return where a tile's core is in its own map, and where in the map of the whole."""
    stride = _stride(tile, features)
    inside = [slice((each.core_start - each.start) // stride, (each.core_stop - each.start) // stride) for each in tile]
    outside = [slice(each.core_start // stride, each.core_stop // stride) for each in tile]
    return (inside[0], inside[1]), (outside[0], outside[1])
