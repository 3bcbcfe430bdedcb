"""A first look at a network and its weights, before a training depends on them."""

from __future__ import annotations

import torch
from torch import Tensor

from clp_basicsr.extractors.base import FeatureExtractor
from clp_basicsr.messages import reason

_LARGEST = 1e9
"""Weights and features of trained networks stay far below; squares of 1e16 at many positions add up to infinity."""


def try_out(extractor: FeatureExtractor) -> None:
    """Look at the weights and run the network once, on the smallest grey image: damage shows before the training.

    Raises:
        ValueError: if weights or features are not finite or beyond all measure, or it does not take RGB images.
    """
    for name, tensor in extractor.named_buffers():
        if tensor.is_floating_point():
            _check_size(f"tensor '{name}'", tensor, extractor.name)
    size = extractor.minimum_size
    grey = torch.full((1, 3, size, size), 0.5, dtype=extractor.mean.dtype)
    try:
        with torch.no_grad():
            features = extractor.extract(grey)
    except Exception as error:  # a checkpoint folder can hold any network there is
        raise ValueError(
            f"Network `{extractor.name}` must take RGB images of any size, but fails with one of {size}x{size} pixels: "
            f"{reason(error)}"
        ) from error
    for layer in extractor.layers:
        shape = tuple(features[layer].shape)
        if len(shape) != 4 or 0 in shape:
            raise ValueError(
                f"Network `{extractor.name}` must give maps (N, C, h, w), but its layer '{layer}' gives {shape}."
            )
        _check_size(f"layer '{layer}' of a grey image", features[layer], extractor.name)


def _check_size(what: str, values: Tensor, network: str) -> None:
    largest = values.abs().max().item() if values.numel() else 0.0
    if not largest <= _LARGEST:
        raise ValueError(
            f"Weights of `{network}` must be those of a trained network, but {what} has values up to {largest:g}: "
            "the file is damaged, or from a training that diverged."
        )
