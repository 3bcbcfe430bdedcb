"""Triton kernels of `clp_basicsr.gpu.distances`: maps are read once for all distances, and once for the gradient.

A map is a matrix of positions and channels, whatever its layout; each is told by its strides from one image, one
position and one channel to the next. Arithmetic is in float32 whatever the maps' precision is.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _term(difference, order: tl.constexpr):
    return difference * difference if order == 2 else tl.abs(difference)


@triton.jit
def _norm(total, order: tl.constexpr):
    return tl.sqrt(total) if order == 2 else total


@triton.jit
def _direction(difference, order: tl.constexpr):
    # A NaN stays one.
    return difference if order == 2 else tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, difference))


@triton.jit
def sums(
    anchor,
    positive,
    negatives,
    out,
    images,
    positions,
    channels,
    positions_per_part,
    anchor_image,
    anchor_position,
    anchor_channel,
    positive_image,
    positive_position,
    positive_channel,
    negative_set,
    negative_image,
    negative_position,
    negative_channel,
    scale,
    eps,
    order: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Write to ``out``, 4 x K N x parts x C numbers, the sums over a part of the positions.

    Of SR - GT, SR - negative, GT - negative and GT; programs are ``(K N, blocks of channels, parts)``.
    """
    scale, eps = tl.cast(scale, tl.float32), tl.cast(eps, tl.float32)
    pair, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(2), tl.num_programs(2)
    image = pair % images
    channel = tl.program_id(1) * columns + tl.arange(0, columns)
    exists = channel < channels
    anchor += image * anchor_image + channel[None, :] * anchor_channel
    positive += image * positive_image + channel[None, :] * positive_channel
    negatives += pair // images * negative_set + image * negative_image + channel[None, :] * negative_channel
    to_positive = tl.zeros((rows, columns), tl.float32)
    to_negative = tl.zeros((rows, columns), tl.float32)
    gap = tl.zeros((rows, columns), tl.float32)
    size = tl.zeros((rows, columns), tl.float32)
    start = part * positions_per_part
    end = tl.minimum(start + positions_per_part, positions)
    for first in range(start, end, rows):
        position = first + tl.arange(0, rows)[:, None]
        inside = (position < end) & exists[None, :]
        sr = tl.load(anchor + position * anchor_position, mask=inside, other=0.0).to(tl.float32)
        gt = tl.load(positive + position * positive_position, mask=inside, other=0.0).to(tl.float32)
        lr = tl.load(negatives + position * negative_position, mask=inside, other=0.0).to(tl.float32)
        shift = tl.where(inside, eps, 0.0)
        to_positive += _term((sr - gt) * scale + shift, order)
        to_negative += _term((sr - lr) * scale + shift, order)
        gap += _term((gt - lr) * scale, order)
        size += _term(gt, order)
    step = tl.num_programs(0).to(tl.int64) * parts * channels
    out += (pair * parts + part) * channels + channel
    tl.store(out, tl.sum(to_positive, 0), mask=exists)
    tl.store(out + step, tl.sum(to_negative, 0), mask=exists)
    tl.store(out + 2 * step, tl.sum(gap, 0), mask=exists)
    tl.store(out + 3 * step, tl.sum(size, 0), mask=exists)


@triton.jit
def _whole(sums, parts, channels, exists, channel, order: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr):
    total = tl.zeros((rows, columns), tl.float32)
    for first in range(0, parts, rows):
        part = first + tl.arange(0, rows)[:, None]
        inside = (part < parts) & exists[None, :]
        total += tl.load(sums + part * channels + channel[None, :], mask=inside, other=0.0)
    return _norm(tl.sum(total, 0), order)


@triton.jit
def norms(
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
    order: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Write the distances, and the gap plus its floor, of the sums in ``sums``; one program for each of ``(K N)``.

    The floor is ``max(of_gap mean(gap) + of_size mean(size), least_gap mean(size) - mean(gap)) + least``, means over
    channels.
    """
    of_gap, of_size = tl.cast(of_gap, tl.float32), tl.cast(of_size, tl.float32)
    least_gap, least = tl.cast(least_gap, tl.float32), tl.cast(least, tl.float32)
    pair = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, columns)
    exists = channel < channels
    step = tl.num_programs(0).to(tl.int64) * parts * channels
    sums += pair * parts * channels
    own = pair * channels + channel
    if pair < images:
        values = _whole(sums, parts, channels, exists, channel, order, rows, columns)
        tl.store(to_positive + own, values, mask=exists)
    values = _whole(sums + step, parts, channels, exists, channel, order, rows, columns)
    tl.store(to_negatives + own, values, mask=exists)
    gaps = _whole(sums + 2 * step, parts, channels, exists, channel, order, rows, columns)
    tl.store(gap + own, gaps, mask=exists)
    sizes = _whole(sums + 3 * step, parts, channels, exists, channel, order, rows, columns)
    mean_gap, mean_size = tl.sum(gaps, 0) / channels, tl.sum(sizes, 0) / channels
    floor = tl.maximum(of_gap * mean_gap + of_size * mean_size, least_gap * mean_size - mean_gap) + least
    tl.store(unit + own, gaps + floor, mask=exists)


@triton.jit
def _factor(gradients, distances, place, exists, scale, order: tl.constexpr, tiny: tl.constexpr):
    factor = tl.load(gradients + place, mask=exists, other=0.0) * scale
    if order == 2:  # where the distance is 0 so is the difference, and their product; a NaN stays one
        distance = tl.load(distances + place, mask=exists, other=1.0)
        factor = factor / tl.where(distance < tiny, tiny, distance)
    return factor[None, :]


@triton.jit
def gradient(
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
    positions,
    channels,
    anchor_image,
    anchor_position,
    anchor_channel,
    positive_image,
    positive_position,
    positive_channel,
    negative_set,
    negative_image,
    negative_position,
    negative_channel,
    out_image,
    out_position,
    out_channel,
    scale,
    eps,
    order: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    tiny: tl.constexpr,
):
    """Write the gradient at SR, of those ``of_positive (N, C)`` and ``of_negatives (K, N, C)`` at the distances.

    Programs are ``(blocks of positions, blocks of channels, N)``.
    """
    scale, eps = tl.cast(scale, tl.float32), tl.cast(eps, tl.float32)
    image = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * columns + tl.arange(0, columns)
    exists = channel < channels
    position = (tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows))[:, None]
    inside = (position < positions) & exists[None, :]
    anchor += image * anchor_image + position * anchor_position + channel[None, :] * anchor_channel
    positive += image * positive_image + position * positive_position + channel[None, :] * positive_channel
    negatives += image * negative_image + position * negative_position + channel[None, :] * negative_channel
    sr = tl.load(anchor, mask=inside, other=0.0).to(tl.float32)
    gt = tl.load(positive, mask=inside, other=0.0).to(tl.float32)
    place = image * channels + channel
    factor = _factor(of_positive, to_positive, place, exists, scale, order, tiny)
    result = factor * _direction((sr - gt) * scale + eps, order)
    for _ in range(sets):
        lr = tl.load(negatives, mask=inside, other=0.0).to(tl.float32)
        factor = _factor(of_negatives, to_negatives, place, exists, scale, order, tiny)
        result += factor * _direction((sr - lr) * scale + eps, order)
        negatives += negative_set
        place += images * channels
    out += image * out_image + position * out_position + channel[None, :] * out_channel
    tl.store(out, result.to(out.dtype.element_ty), mask=inside)
