"""Two random convolutions with a tanh between: features that were never trained, on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clp_basicsr.extractors.base import FeatureExtractor, Options, freeze
from clp_basicsr.extractors.layers import check_layers
from clp_basicsr.extractors.weights import RANDOM, seeded_initialisation
from clp_basicsr.messages import shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_LAYER_WEIGHTS = {"conv1": 1.0, "conv2": 1.0}


class RandomConvs(FeatureExtractor):
    """``conv1`` and ``conv2`` of Conv3x3 - Tanh - Conv3x3, three channels each, from a fixed seed.

    Source: Kong et al., "Residual Local Feature Network for Efficient Super-Resolution" (CVPRW 2022),
    which found VGG's deep features to cost PSNR. Its code was never released; channels and Kaiming
    initialisation (fan_out) are those of its re-implementations.
    """

    def __init__(
        self,
        name: str = "random_convs",
        layers: Sequence[str] | None = None,
        weights: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Build the two convolutions.

        Args:
            name: the name it was asked for by, for messages.
            layers: "conv1", "conv2"; None for both.
            weights: None or ``"random"``, which are the same here.
            **options: as in `FeatureExtractor`.

        Raises:
            ValueError: for an unknown layer, or a file as weights.
        """
        if weights not in (None, RANDOM):
            raise ValueError(
                f"Argument `weights` must be left out with `{name}`, which has none, but got {shown(weights)}."
            )
        chosen = check_layers(name, layers, tuple(DEFAULT_LAYER_WEIGHTS), tuple(DEFAULT_LAYER_WEIGHTS))
        super().__init__(name, chosen, DEFAULT_LAYER_WEIGHTS, minimum_size=1, **options)
        with seeded_initialisation():
            self.network = freeze(nn.ModuleDict({layer: _convolution() for layer in DEFAULT_LAYER_WEIGHTS}))

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Return both convolutions' outputs for images ``(N, 3, H, W)``."""
        first = self.network.get_submodule("conv1")(images)
        return {"conv1": first, "conv2": self.network.get_submodule("conv2")(torch.tanh(first))}


def _convolution() -> nn.Conv2d:
    layer = nn.Conv2d(3, 3, kernel_size=3, padding=1)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
