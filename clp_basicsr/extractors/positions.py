"""DINOv2's position encodings for the size of the images, interpolated once instead of in every pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def remember_positions(network: nn.Module) -> None:
    """Let a frozen backbone keep the encodings of the last size, if it interpolates them.

    PyTorch's bicubic kernel walks through the channels one after the other: on an H100 two calls take 5 ms, a quarter
    of the kernels of a step of DINOv2-base in bfloat16.
    """
    embeddings: Any = getattr(network, "embeddings", None)
    if callable(getattr(embeddings, "interpolate_pos_encoding", None)) and hasattr(embeddings, "position_embeddings"):
        # Not a function hung on the module: DataParallel's copies of it would use the original's encodings.
        own = type(embeddings)
        members = {"_interpolated": own.interpolate_pos_encoding}  # dynamo does not know every way to write `super()`
        embeddings.__class__ = type(own.__name__, (_Remembering, own), members)


class _Remembering:
    position_embeddings: Tensor
    _interpolated: Callable[[Tensor, int, int], Tensor]
    _last: tuple[Tensor, tuple[int, int], Tensor] | None = None
    _read_by_graphs: tuple[Tensor, ...] = ()

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """Return what the network's own method returns."""
        if torch.compiler.is_compiling():
            return self._interpolated(embeddings, height, width)
        captured = _is_captured(embeddings)
        if self._last is not None:
            source, size, interpolated = self._last
            if source is self.position_embeddings and size == (height, width):
                if captured:  # replayed, a CUDA graph reads the same memory, whatever sizes came in between
                    self._read_by_graphs = (*self._read_by_graphs, interpolated)
                return interpolated
        with torch.inference_mode(False):  # for a training that follows a validation
            interpolated = self._interpolated(embeddings, height, width)
        if not captured:  # else there are no values until it is replayed
            self._last = self.position_embeddings, (height, width), interpolated
        return interpolated


def _is_captured(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()
