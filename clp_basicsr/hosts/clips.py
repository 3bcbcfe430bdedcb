"""Clips as BasicSR's video models hold them in a validation."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def without_mirror(model: Any, lr: Tensor) -> Tensor:
    """Return ``lr`` ``(N, T, C, h, w)`` without its reverse, which VideoRecurrentModel appends for ``flip_seq``.

    Images ``(N, C, h, w)`` are returned as they are. As ``test`` in basicsr/models/video_recurrent_model.py.
    """
    is_mirrored = lr.dim() == 5 and (model.opt.get("val") or {}).get("flip_seq", False)
    return lr[:, : lr.shape[1] // 2] if is_mirrored else lr
