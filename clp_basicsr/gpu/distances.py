"""The distances of a layer on a GPU, by kernels that read each map once.

Function by function, PyTorch reads and writes maps 26 times for the three distances of a layer and their gradient,
and that is a fifth of a step of VGG19 on an H100. Here it is 7 times, in three kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clp_basicsr.gpu.capability import is_nvidias
from clp_basicsr.messages import reason, warn
from clp_basicsr.norms import least_divisor, parts_of_gradient

_TINY = least_divisor(torch.float32)
_TILE = 2048  # entries of each map that a program holds at a time
_CHANNELS_OF_TILE = 64
_PROGRAMS = 2048  # several for each multiprocessor of the largest GPUs
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_READY: dict[int | None, bool] = {}  # by index of the GPU


class Measure(NamedTuple):
    """How to measure."""

    order: int
    """2 for the root of the sum of squares, 1 for the sum of absolute values."""
    scale: float
    """Multiplies the features."""
    eps: float
    """Is added to differences from SR."""
    floor: tuple[float, float, float, float]
    """Shares of mean gap and mean size, the share of the size that gap and floor reach at least, and what is added."""


def measured(
    anchor: Tensor, positive: Tensor, negatives: Tensor, how: Measure
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``(to_positive, to_negatives, gap, unit)`` as in `clp_basicsr.criteria.base.Distances`, in float32.

    Args:
        anchor: SR's features ``(N, C, h, w)``; gradient flows into them alone.
        positive: GT's features of the same shape.
        negatives: features ``(K, N, C, h, w)``.
        how: what to measure.
    """
    distances: tuple[Tensor, Tensor, Tensor, Tensor] = _Distances.apply(anchor, positive, negatives, *how)
    return distances


def can_measure(anchor: Tensor, positive: Tensor, negatives: Tensor) -> bool:
    """Say whether `measured` can do it, and is known to be faster."""
    maps = (anchor, positive, negatives)
    return (
        anchor.is_cuda
        and all(each.dtype in _DTYPES and _positions_in_a_row(each) and _is_counted_in_32_bits(each) for each in maps)
        and not (torch.is_grad_enabled() and (positive.requires_grad or negatives.requires_grad))
        and make_ready(anchor.device)
    )


def make_ready(device: torch.device) -> bool:
    """Say whether kernels run on a device, after having tried one; call it before a graph is compiled, which cannot."""
    if device.index not in _READY and not torch.compiler.is_compiling():
        _READY[device.index] = _try(device)
    return _READY.get(device.index, False)


def _try(device: torch.device) -> bool:
    if not is_nvidias(device):
        return False
    try:
        import triton  # noqa: F401
    except ImportError:  # there is none for Windows in PyTorch
        return False
    maps = torch.ones(1, 1, 1, 1, device=device)
    try:
        with torch.no_grad():
            measured(maps, maps, maps[None], Measure(2, 1.0, 0.0, (0.0, 0.0, 0.0, 0.0)))
    except Exception as error:  # it writes files, and asks for a C compiler and a fitting driver
        warn(
            f"Triton, which comes with PyTorch, cannot compile for {device}: {reason(error)} The loss measures "
            "distances with PyTorch's own functions: the same values, in more time. Mostly a C compiler is missing "
            "(gcc), or the folder of Triton's cache cannot be written (TRITON_CACHE_DIR)."
        )
        return False
    return True


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, positive: Tensor, negatives: Tensor, order: int, scale: float, eps: float, floor: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        how = Measure(order, scale, eps, floor)
        to_positive, to_negatives, gap, unit = _on_its_device(_measure, anchor, positive, negatives, how)
        ctx.save_for_backward(anchor, positive, negatives, to_positive, to_negatives)
        ctx.how = how
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(gap, unit)
        return to_positive, to_negatives, gap, unit

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        anchor, positive, negatives, to_positive, to_negatives = ctx.saved_tensors
        how: Measure = ctx.how
        of_positive, of_negatives = (
            torch.zeros_like(distance) if gradient is None else gradient
            for gradient, distance in zip(gradients, (to_positive, to_negatives))
        )
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # Somebody wants the second derivative, which kernels have not.
            parts = [
                *parts_of_gradient(anchor, positive, to_positive, of_positive, *how[:3]),
                *parts_of_gradient(anchor, negatives, to_negatives, of_negatives, *how[:3]),
            ]
            result = torch.stack(parts).sum(0).to(anchor.dtype)
        else:
            distances = to_positive, to_negatives, of_positive.contiguous(), of_negatives.contiguous()
            result = _on_its_device(_gradient, anchor, positive, negatives, *distances, how)
        return result, None, None, None, None, None, None


def _on_its_device(function: Callable[..., Any], anchor: Tensor, *arguments: Any) -> Any:
    if torch.compiler.is_compiling():  # Inductor sees to it
        return function(anchor, *arguments)
    with torch.cuda.device_of(anchor):  # type: ignore[no-untyped-call]  # Triton launches on the current one
        return function(anchor, *arguments)


def _measure(
    anchor: Tensor, positive: Tensor, negatives: Tensor, how: Measure
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from clp_basicsr.gpu import kernels

    sets, images, channels, height, width = negatives.shape
    positions, pairs = height * width, sets * images
    rows, columns = _tile(anchor)
    blocks = _over(channels, columns)
    parts = max(1, min(_over(positions, 4 * rows), _over(_PROGRAMS, pairs * blocks)))
    length = _over(_over(positions, parts), rows) * rows
    parts = _over(positions, length)
    new = partial(torch.empty, dtype=torch.float32, device=anchor.device)
    sums = new(4 * pairs * parts * channels)  # one dimension: a graph would be for one part, or for several
    kernels.sums[(pairs, blocks, parts)](
        anchor,
        positive,
        negatives,
        sums,
        images,
        positions,
        channels,
        length,
        *_strides(anchor),
        *_strides(positive),
        *_strides(negatives),
        how.scale,
        how.eps,
        how.order,
        rows,
        columns,
    )
    to_positive = new((images, channels))
    to_negatives, gap, unit = (new((sets, images, channels)) for _ in range(3))
    of_gap, of_size, least_gap, least = how.floor
    columns = _power_of_two(channels)
    kernels.norms[(pairs,)](
        sums,
        to_positive,
        to_negatives,
        gap,
        unit,
        images,
        channels,
        parts,
        of_gap,
        of_size,
        least_gap,
        least,
        how.order,
        max(1, 2 * _TILE // columns),
        columns,
    )
    return to_positive, to_negatives, gap, unit


def _gradient(
    anchor: Tensor,
    positive: Tensor,
    negatives: Tensor,
    to_positive: Tensor,
    to_negatives: Tensor,
    of_positive: Tensor,
    of_negatives: Tensor,
    how: Measure,
) -> Tensor:
    from clp_basicsr.gpu import kernels

    sets, images, channels, height, width = negatives.shape
    rows, columns = _tile(anchor)
    # In SR's layout, and packed; dynamo of torch 2.6 does not know what strides a new tensor has.
    of_channel, of_position = (1, channels) if anchor.stride(-3) == 1 else (height * width, 1)
    whole = channels * height * width
    strides = (whole, of_channel, width * of_position, of_position)
    out = torch.empty_strided(anchor.shape, strides, dtype=anchor.dtype, device=anchor.device)
    kernels.gradient[(_over(height * width, rows), _over(channels, columns), images)](
        anchor,
        positive,
        negatives,
        to_positive,
        to_negatives,
        of_positive,
        of_negatives,
        out,
        sets,
        images,
        height * width,
        channels,
        *_strides(anchor),
        *_strides(positive),
        *_strides(negatives),
        whole,
        of_position,
        of_channel,
        how.scale,
        how.eps,
        how.order,
        rows,
        columns,
        _TINY,
    )
    return out


def _positions_in_a_row(maps: Tensor) -> bool:
    """Say whether one step leads from each position to the next, over the ends of rows too."""
    of_rows, of_columns = maps.stride()[-2:]
    return of_rows == of_columns * maps.shape[-1]


def _is_counted_in_32_bits(maps: Tensor) -> bool:
    """Say whether kernels can count the entries of an image's map: 5800 x 5800 pixels make too many in VGG19."""
    last_entry: int = sum((size - 1) * step for size, step in zip(maps.shape[-3:], maps.stride()[-3:]))
    return last_entry < 2**31


def _strides(maps: Tensor) -> tuple[int, ...]:
    """Return the steps between sets, if there are sets, between images, positions and channels."""
    *leading, channel, _, position = maps.stride()
    return *leading, position, channel


def _tile(maps: Tensor) -> tuple[int, int]:
    """Return how many positions and channels a program holds: those side by side in memory first."""
    channels = _CHANNELS_OF_TILE if maps.stride(-3) == 1 else _TILE // 256
    columns = min(channels, _power_of_two(maps.shape[-3]))
    return _TILE // columns, columns


def _power_of_two(count: int) -> int:
    """Return the smallest that is not below ``count``."""
    return 1 << (count - 1).bit_length()


def _over(count: int, size: int) -> int:
    return -(-count // size)
