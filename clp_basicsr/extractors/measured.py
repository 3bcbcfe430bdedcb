"""Extractors around networks of other people's: what their outputs look like and what sizes they want, measured.

No table can say this for every network of a package, so each network is asked once, when it is built:
its shapes on torch's "meta" device, which computes nothing, and its blind edges with a few tiny images.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from clp_basicsr.extractors.base import FeatureExtractor
from clp_basicsr.extractors.patches import multiply_patches
from clp_basicsr.images import reflect_pad_to_multiple

_SHORT, _LONG = 448, 896  # whole patches of 14 as well as of 16, and whole positions up to a stride of 64
# `forward` itself is called below: a traced network's `__call__` prints what goes wrong in it.
_WRONG_SIZE = (RuntimeError, AssertionError, ValueError)


class Axes(NamedTuple):
    """Where a 4-D output keeps its channels, rows and columns, and how many pixels one row stands for."""

    channels: int
    rows: int
    columns: int
    stride: int


class Sizes(NamedTuple):
    """Images are padded to ``multiple * k + remainder`` pixels; ``minimum`` is the least they may have before."""

    multiple: int
    remainder: int
    minimum: int


class MeasuredExtractor(FeatureExtractor):
    """A network that returns its layers' outputs in a mapping or sequence, with the contract around it."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        outputs: Mapping[str, tuple[Any, Axes]],
        default_layers: Sequence[str],
        **options: Any,
    ) -> None:
        """Measure what sizes the frozen ``network`` wants.

        Args:
            name: as in `FeatureExtractor`.
            network: frozen, on the CPU; nothing in it works in place.
            outputs: by layer, in order of depth: its key in what the network returns, and its axes.
            default_layers: the layers for a loss that is told nothing, of equal weights.
            **options: ``use_input_norm``, ``precision``, ``mean`` and ``std`` of `FeatureExtractor`.

        Raises:
            ValueError: if the network drops pixels at every size.
        """
        sizes = _measure_sizes(name, network, list(outputs.values()))
        super().__init__(
            name, tuple(outputs), dict.fromkeys(default_layers, 1.0), minimum_size=sizes.minimum, **options
        )
        self.sizes = sizes
        self.outputs = dict(outputs)
        self.network = multiply_patches(network)

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Return the chosen layers' maps of normalised images ``(N, 3, H, W)``."""
        returned = self.network(reflect_pad_to_multiple(images, self.sizes.multiple, self.sizes.remainder))
        return {
            layer: returned[key].permute(0, axes.channels, axes.rows, axes.columns)
            for layer, (key, axes) in self.outputs.items()
        }


def keep_outputs(network: nn.Module) -> nn.Module:
    """Let no activation of ``network`` overwrite its input, which may be a layer that somebody asked for."""
    for module in network.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010  mypy takes it for a Tensor
    return network


def find_axes(network: nn.Module) -> dict[Any, Axes | None]:
    """Return the axes of everything that ``network`` returns, by key; None for what is no map of the image.

    Raises:
        RuntimeError, AssertionError, ValueError: the network's own, if it takes images of one size only.
    """
    shapes = _without_values(network)
    low, tall = (_by_key(shapes.forward(_image(*size))) for size in ((_SHORT, _LONG), (_LONG, _SHORT)))
    return {key: _axes(low[key], tall[key]) for key in low}


def _by_key(returned: Any) -> dict[Any, Any]:
    return dict(returned) if isinstance(returned, Mapping) else dict(enumerate(returned))


def _axes(low: object, tall: object) -> Axes | None:
    """Compare a map of a low and wide image with that of a tall and narrow one."""
    if not isinstance(low, Tensor) or not isinstance(tall, Tensor) or low.dim() != 4:
        return None
    rows = [axis for axis in (1, 2, 3) if low.shape[axis] < tall.shape[axis]]
    columns = [axis for axis in (1, 2, 3) if low.shape[axis] > tall.shape[axis]]
    if len(rows) != 1 or len(columns) != 1:
        return None
    (channels,) = {1, 2, 3} - {rows[0], columns[0]}
    stride = round((_LONG - _SHORT) / (tall.shape[rows[0]] - low.shape[rows[0]]))
    return Axes(channels, rows[0], columns[0], stride) if stride else None  # maps larger than the image are no features


def _measure_sizes(name: str, network: nn.Module, outputs: Sequence[tuple[Any, Axes]]) -> Sizes:
    strides = [axes.stride for _, axes in outputs]
    shapes, deepest = _without_values(network), max(strides)
    sizes = range(deepest, _SHORT + 1, deepest)
    smallest = next((size for size in sizes if _runs(shapes, outputs, size)), sizes[-1])
    # A pixel that reaches the shallowest layer has its share in the loss.
    key, axes = outputs[strides.index(min(strides))]
    good = [rest for rest in range(axes.stride) if _sees_last_column(network, key, smallest, smallest + rest)]
    remainder = good[0] if good else 0
    wanted = 1 if len(good) == axes.stride else axes.stride if remainder else deepest
    # Branches of deeper strides than those that were asked for may have to meet again (HRNet).
    multiples = (wanted * 2**power for power in range(8))
    large = _SHORT // deepest * deepest + remainder
    multiple = next((each for each in multiples if _runs(shapes, outputs, large + each)), None)
    if not good or multiple is None:
        raise ValueError(
            f"`{name}` with the layers that end at strides {strides} drops pixels of images of every size, or takes "
            "few sizes only. Choose other layers (layer_weights)."
        )
    return Sizes(multiple, remainder % multiple, max(smallest, multiple))


def _runs(shapes: nn.Module, outputs: Sequence[tuple[Any, Axes]], size: int) -> bool:
    try:
        returned = shapes.forward(_image(size, size))
    except _WRONG_SIZE:
        return False
    return all(returned[key].numel() > 0 for key, _ in outputs)


@torch.no_grad()
def _sees_last_column(network: nn.Module, key: Any, height: int, width: int) -> bool:
    """Let a NaN in the last column say whether it reaches an output; whatever the weights are, it spreads."""
    images = torch.zeros(1, 3, height, width)
    images[..., -1] = torch.nan
    try:
        with _exact_convolutions():
            return bool(network.forward(images)[key].isnan().any())
    except _WRONG_SIZE:
        return False


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """Keep away oneDNN, whose fast convolutions mix neighbours that cancel out: NaN does not cancel out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # setting the flags warns of a lack of Intel GPUs
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _without_values(network: nn.Module) -> nn.Module:
    """Return a copy that has shapes only and takes neither memory nor time."""
    memo: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in network.buffers()}
    memo |= {id(each): nn.Parameter(each.to("meta"), requires_grad=False) for each in network.parameters()}
    return copy.deepcopy(network, memo)


def _image(height: int, width: int) -> Tensor:
    return torch.empty(1, 3, height, width, device="meta")
