"""torchvision's VGG19, cut behind the deepest layer used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clp_basicsr.extractors.base import FeatureExtractor, Options, freeze
from clp_basicsr.extractors.layers import check_layers
from clp_basicsr.extractors.recomputing import recomputed
from clp_basicsr.extractors.torchvision_weights import published_state_dict
from clp_basicsr.extractors.weights import RANDOM, load_strictly, read_state_dict, seeded_initialisation
from clp_basicsr.gpu.capability import has_modern_tensor_cores
from clp_basicsr.gpu.convolutions import can_join, convolution_and_relu, with_nans_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Convolutions per block; torchvision's `cfgs["E"]`.
_CONVOLUTIONS = (2, 2, 4, 4, 4)
_WIDTH = 64  # channels of the first block; each further one has twice as many, up to 512
DEFAULT_LAYER_WEIGHTS = {"relu1_2": 0.5, "relu2_2": 0.5, "relu3_4": 1.0, "relu4_4": 1.0, "relu5_4": 1.0}

# Where BasicSR's own PerceptualLoss looks first (basicsr/archs/vgg_arch.py).
_BASICSR_FILE = Path("experiments/pretrained_models/vgg19-dcbb9e9d.pth")


def _module_names() -> list[str]:
    names = []
    for block, convolutions in enumerate(_CONVOLUTIONS, start=1):
        for index in range(1, convolutions + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        names.append(f"pool{block}")
    return names


_MODULE_NAMES = _module_names()
_CONVOLUTION_INDICES = {str(index) for index, name in enumerate(_MODULE_NAMES) if name.startswith("conv")}
LAYERS = tuple(name for name in _MODULE_NAMES if not name.startswith("pool"))


class VGG19(FeatureExtractor):
    """Features of VGG19 by name: ``convX_Y`` before the ReLU (as in BasicSR), ``reluX_Y`` after it.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition" (2014); weights and layout of ``torchvision.models.vgg19``.
    """

    can_hold_half_weights = True

    def __init__(
        self,
        name: str = "vgg19",
        layers: Sequence[str] | None = None,
        weights: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Build the network up to the deepest of ``layers``.

        Args:
            name: as every network takes it; this one has no other.
            layers: names out of `LAYERS`; None for those of `DEFAULT_LAYER_WEIGHTS`.
            weights: None (published weights), a file, or ``"random"``.
            **options: as in `FeatureExtractor`.

        Raises:
            ValueError: for an unknown layer or a file that is not VGG19's.
            FileNotFoundError: if the weights cannot be had.
        """
        chosen = check_layers("vgg19", layers, LAYERS, tuple(DEFAULT_LAYER_WEIGHTS))
        deepest_block = int(chosen[-1][4])
        super().__init__("vgg19", chosen, DEFAULT_LAYER_WEIGHTS, minimum_size=2 ** (deepest_block - 1), **options)
        self.network = freeze(_build(chosen, weights))
        self.segments = _segments([name for name, _ in self.network.named_children()], chosen)
        self.recomputes = False

    def prefers_channels_last(self, device: torch.device) -> bool:
        """Say whether it is faster: 0.87 of a step's time on the CPU, 0.85 on an H100 in every precision."""
        return device.type == "cpu" or has_modern_tensor_cores(device)

    def gains_from_compilation(self, device: torch.device) -> bool:
        """Say whether compiled code is faster: on the CPU passes take 1.12 of the time, a step 1.07 with them eager."""
        return device.type != "cpu"

    def recompute(self) -> None:
        """Keep the chosen layers and what enters a block, and compute the rest again in the backward pass."""
        self.recomputes = True

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Return the chosen layers of normalised images ``(N, 3, H, W)``."""
        features: dict[str, Tensor] = {}
        joined = can_join(images, _WIDTH)
        maps = images
        for segment in self.segments:
            maps = recomputed(self._run, maps, segment, joined) if self.recomputes else self._run(maps, segment, joined)
            if segment[-1] in self.layers:
                features[segment[-1]] = maps
        if joined:
            features[self.layers[-1]] = with_nans_of(images, maps)
        return features

    def _run(self, maps: Tensor, segment: Sequence[str], joined: bool) -> Tensor:
        names = iter(zip(segment, [*segment[1:], ""]))
        for name, following in names:
            module: Any = self.network._modules[name]
            if joined and name.startswith("conv") and following.startswith("relu"):
                maps = convolution_and_relu(maps, module)
                next(names)
            else:
                maps = module(maps)
        return maps


def _segments(names: Sequence[str], layers: Sequence[str]) -> list[list[str]]:
    """Cut the network behind each chosen layer and before each pooling."""
    segments: list[list[str]] = [[]]
    for name in names:
        if segments[-1] and (segments[-1][-1] in layers or name.startswith("pool")):
            segments.append([])
        segments[-1].append(name)
    return segments


def _build(layers: Sequence[str], weights: str | None) -> nn.Sequential:
    if weights == RANDOM:
        with seeded_initialisation():
            return _initialised(_network(layers))
    state, source = _state_dict(weights)
    network = _network(layers)
    indices = {name: str(_MODULE_NAMES.index(name)) for name, _ in network.named_children()}
    renamed = {
        f"{name}.{part}": state[f"{index}.{part}"]
        for name, index in indices.items()
        for part in ("weight", "bias")
        if f"{index}.{part}" in state
    }
    load_strictly(network, renamed, source=source, network="vgg19")
    return network


def _network(layers: Sequence[str]) -> nn.Sequential:
    network = nn.Sequential()
    channels = 3
    for name in _MODULE_NAMES[: _MODULE_NAMES.index(layers[-1]) + 1]:
        kind, block = name[:4], int(name[4])
        if kind == "pool":
            network.add_module(name, nn.MaxPool2d(kernel_size=2, stride=2))
        elif kind == "relu":
            # In place halves the activations autograd keeps, but would overwrite a convolution's
            # output that somebody asked for.
            network.add_module(name, nn.ReLU(inplace=name.replace("relu", "conv") not in layers))
        else:
            width = min(_WIDTH * 2 ** (block - 1), 512)
            network.add_module(name, nn.Conv2d(channels, width, kernel_size=3, padding=1))
            channels = width
    return network


def _initialised(network: nn.Sequential) -> nn.Sequential:
    for module in network:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return network


def _state_dict(weights: str | None) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of the ``features`` part by torchvision's indices, and where they are from."""
    from torchvision.models import VGG19_Weights

    if weights is None and not _BASICSR_FILE.is_file():
        place = f"'{_BASICSR_FILE}' (below the folder you train in) or at "
        state = published_state_dict("vgg19", VGG19_Weights.IMAGENET1K_V1, place=place)
        source = "torchvision's VGG19_Weights.IMAGENET1K_V1"
    else:
        path = weights if weights is not None else _BASICSR_FILE
        state, source = read_state_dict(path), str(path)
    prefix = "features."
    if any(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    # VGG16 begins with the same shapes: it shows only in what VGG19 has not.
    for key in state:
        if key.split(".")[0] not in _CONVOLUTION_INDICES:
            raise ValueError(
                f"Weights in '{source}' must be those of `vgg19`, but they hold '{key}', which VGG19 does not have."
            )
    return state, source
