"""Norms of differences of feature maps, for training: nothing the size of a map is kept beside the maps themselves.

Written with torch's own functions, autograd keeps each difference until the backward pass, one more
map for every distance. Here the difference is computed again where its gradient is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from clp_basicsr.images import at_least_float32


def l2_of_difference(first: Tensor, second: Tensor, scale: float = 1.0, eps: float = 0.0) -> Tensor:
    """Return ``|(first - second) scale + eps|`` over positions, with gradient 0 where it is 0.

    Args:
        first: features ``(..., C, h, w)``.
        second: features that ``first`` broadcasts with.
        scale: multiplies the difference.
        eps: is added to each entry of it.

    Returns:
        ``(..., C)``.
    """
    return _norm(first, second, scale, eps, 2)


def l1_of_difference(first: Tensor, second: Tensor, scale: float = 1.0, eps: float = 0.0) -> Tensor:
    """Return the sum of absolute values in place of the root of that of squares; see `l2_of_difference`."""
    return _norm(first, second, scale, eps, 1)


def norm(features: Tensor, order: int) -> Tensor:
    """Return the norm of features ``(..., C, h, w)`` over positions, ``(..., C)``, in at least float32."""
    if features.is_cuda:
        return _vector_norm(features, order)
    features = at_least_float32(features)
    return features.abs().sum((-2, -1)) if order == 1 else features.square().sum((-2, -1)).sqrt()


def _vector_norm(values: Tensor, order: int) -> Tensor:
    dtype = torch.promote_types(values.dtype, torch.float32)
    result: Tensor = torch.linalg.vector_norm(values, ord=order, dim=(-2, -1), dtype=dtype)
    return result


def _norm(first: Tensor, second: Tensor, scale: float, eps: float, order: int) -> Tensor:
    if torch.compiler.is_compiling():  # the compiler decides itself what to keep and what to compute again
        return _vector_norm(_difference(first, second, scale, eps), order)
    norms: Tensor = _NormOfDifference.apply(first, second, scale, eps, order)
    return norms


def _difference(first: Tensor, second: Tensor, scale: float, eps: float) -> Tensor:
    # Half precision maps are brought to float32 one at a time, here, if at all.
    difference = (first if _may_be_rounded(first, scale, eps) else at_least_float32(first)) - second
    if scale != 1.0:
        difference = difference * scale
    return difference + eps if eps else difference


def _may_be_rounded(features: Tensor, scale: float, eps: float) -> bool:
    """Say whether a difference in the features' own precision is near enough, and less to move.

    In bfloat16 it is off by 2^-9 of itself at most, and by nothing where the maps are near each other: its digits are
    those that the network computed. float16 could overflow.
    """
    own = scale == 1.0 and not eps and features.dtype == torch.bfloat16
    return own and not torch.compiler.is_compiling() and features.is_cuda


def _norm_in_place(difference: Tensor, order: int) -> Tensor:
    if difference.is_cuda:  # measured there and on the CPU; what is safe anywhere else is below
        return _vector_norm(difference, order)
    # A quarter of the time of vector_norm on the CPU, where maps lie channels last.
    if order == 1:
        return difference.abs_().sum((-2, -1))
    return difference.mul_(difference).sum((-2, -1)).sqrt_()


class _NormOfDifference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, scale: float, eps: float, order: int) -> Tensor:
        norms = _norm_in_place(_difference(first, second, scale, eps), order)
        ctx.save_for_backward(first, second, norms)
        ctx.settings = order, scale, eps
        return norms

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        first, second, norms = ctx.saved_tensors
        of_first: Tensor | None = None
        of_second: list[Tensor] = []
        for part in parts_of_gradient(first, second, norms, gradients[0], *ctx.settings):
            of_first = part if of_first is None else of_first + part
            if ctx.needs_input_grad[1]:
                of_second.append(-part)
        assert of_first is not None
        of_first = of_first.to(first.dtype)
        if not of_second:
            return of_first, None, None, None, None
        of_references = torch.stack(of_second) if second.dim() > first.dim() else of_second[0]
        return of_first, of_references.to(second.dtype), None, None, None


def parts_of_gradient(
    first: Tensor, second: Tensor, norms: Tensor, gradients: Tensor, order: int, scale: float, eps: float
) -> Iterator[Tensor]:
    """Yield the gradient at ``first``, of that at the norms of its difference from ``second``; it can be derived again.

    Where ``second`` is several sets, one part for each, to be added up.
    """
    factors = gradients if scale == 1.0 else gradients * scale
    if order == 2:  # where the norm is 0 so is the difference, and their product
        factors = factors / norms.clamp(min=least_divisor(norms.dtype))
    several = second.dim() > first.dim()
    for each, factor in zip(second, factors) if several else ((second, factors),):
        difference = _difference(first, each, scale, eps)
        yield (difference.detach().sgn() if order == 1 else difference).mul_(factor[..., None, None])


def least_divisor(dtype: torch.dtype) -> float:
    """Return what divides in place of a norm that is smaller: as near to 0 as its square still is a number."""
    return math.sqrt(torch.finfo(dtype).tiny)
