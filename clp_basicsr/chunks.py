"""``chunk: n``: the loss of n images at a time, whose gradient is taken before the next begin.

Exact for a loss that is the mean over its images, and at no more arithmetic: the features of n images
are in memory at a time, and what waits for the backward pass is the gradient at the images alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from clp_basicsr.criteria import Terms

Evaluate = Callable[[Tensor, slice, float], Tensor]
"""The loss of some images ``(n, 3, H, W)``, which rows of the batch they are, and their share of it."""


def evaluate_in_chunks(images: Tensor, size: int, evaluate: Evaluate) -> Tensor:
    """Return the mean over ``images`` of what ``evaluate`` says of ``size`` of them at a time."""
    if images.requires_grad and torch.is_grad_enabled():
        value: Tensor = _InChunks.apply(images, size, evaluate)
        return value
    shares = [share * evaluate(images[rows], rows, share) for rows, share in _chunks(len(images), size)]
    return torch.stack(shares).sum()


def merged(chunks: list[tuple[float, list[Terms]]]) -> list[Terms]:
    """Return the terms of each layer over all chunks, of which each has its share of the batch."""
    if len(chunks) == 1:
        return chunks[0][1]
    layers = zip(*(terms for _, terms in chunks))
    shares = [share for share, _ in chunks]
    return [_mean(shares, layer) for layer in layers]


def _mean(shares: list[float], terms: tuple[Terms, ...]) -> Terms:
    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([share * value for share, value in zip(shares, values)]).sum(0)

    return Terms(
        loss=mean([each.loss for each in terms]),
        numbers=mean([each.numbers for each in terms]),
        total=sum(each.total for each in terms),
    )


def _chunks(count: int, size: int) -> Iterator[tuple[slice, float]]:
    for start in range(0, count, size):
        stop = min(start + size, count)
        yield slice(start, stop), (stop - start) / count


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, size: int, evaluate: Evaluate) -> Tensor:
        values: list[Tensor] = []
        gradients: list[Tensor] = []
        for rows, share in _chunks(len(images), size):
            with torch.enable_grad():
                chunk = images[rows].detach().requires_grad_()
                value = share * evaluate(chunk, rows, share)
                gradients += torch.autograd.grad(value, chunk)
            values.append(value.detach())
        ctx.save_for_backward(torch.cat(gradients))
        return torch.stack(values).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (of_images,) = ctx.saved_tensors
        return of_images * gradient, None, None
