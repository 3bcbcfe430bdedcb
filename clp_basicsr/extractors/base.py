"""The extraction contract: images in, named feature maps out, nothing to train and nothing to save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn

from clp_basicsr.extractors.precision import PRECISIONS, automatic_precision, warn_if_emulated
from clp_basicsr.extractors.recomputing import recompute_blocks, recomputed
from clp_basicsr.images import at_least_float32

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Options(TypedDict, total=False):
    """What every network can be told; see `FeatureExtractor`."""

    use_input_norm: bool
    precision: str


class FeatureExtractor(nn.Module):
    """A frozen network: images ``(N, 3, H, W)`` in [0, 1] to ``{layer: (N, C, h, w)}``.

    Gradient reaches every pixel of the images and nothing else. The network's weights are
    non-persistent buffers: they move with ``.to()``, copy and pickle, but there is nothing an
    optimizer, an EMA or ``requires_grad_`` could touch, and ``state_dict()`` is empty.

    Subclasses build their network, call `freeze`, and implement `extract`.
    """

    mean: Tensor
    std: Tensor
    can_hold_half_weights = False
    """Whether convolutions and linear layers run nowhere but under autocast, so that their weights may be rounded."""

    def __init__(
        self,
        name: str,
        layers: Sequence[str],
        default_layer_weights: Mapping[str, float],
        minimum_size: int,
        *,
        use_input_norm: bool = True,
        precision: str = "float32",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """Set up the contract.

        Args:
            name: the network's name in error messages.
            layers: the layers to return, in order of depth.
            default_layer_weights: what a loss weights the layers with when it is told nothing.
            minimum_size: smallest height and width of the images, in pixels.
            use_input_norm: subtract ``mean`` and divide by ``std``.
            precision: a key of `PRECISIONS`; below float32 the network runs under autocast.
                "auto" is decided at each call, by the images' device.
            mean: of the images that the network was trained on, per channel; ImageNet's, mostly.
            std: their standard deviation.
        """
        super().__init__()
        self.name = name
        self.layers = tuple(layers)
        self.default_layer_weights = dict(default_layer_weights)
        self.minimum_size = minimum_size
        self.use_input_norm = use_input_norm
        self.precision = precision
        self._is_channels_last = False
        self._recomputes_whole = False
        for key, values in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stay in eval mode, whatever ``mode`` says: a frozen network must not drop or update."""
        return super().train(False)

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Return the feature maps of normalised images, by name, in order of depth."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``{layer: (N, C, h, w)}`` in at least float32.

        Args:
            images: ``(N, 3, H, W)``, values in [0, 1].

        Raises:
            ValueError: if the images are too small for the network or on another device.
        """
        return {layer: at_least_float32(features) for layer, features in self.as_computed(images).items()}

    def as_computed(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps of `forward` in the precision that the network computed them in; all else is as there.

        In half precision they take half the memory until somebody measures them.
        """
        self.make_ready(images)
        images = images.to(self.mean.dtype)
        if self._is_channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if self.use_input_norm:
            images = (images - self.mean) / self.std
        dtype = PRECISIONS[self.precision] or automatic_precision(images.device)
        reduced = dtype != torch.float32
        with torch.autocast(images.device.type, dtype=dtype if reduced else None, enabled=reduced):
            features = recomputed(self.extract, images) if self._recomputes_whole else self.extract(images)
        return {layer: features[layer] for layer in self.layers}

    def recompute(self) -> None:
        """From now on, keep no activations inside blocks for the backward pass; compute them again there."""
        self._recomputes_whole = not recompute_blocks(self)

    def make_ready(self, images: Tensor) -> None:
        """Check what `forward` asks of images, and lay out the weights for their device.

        Raises:
            ValueError: if they are too small for the network or on another device.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.minimum_size:
            raise ValueError(
                f"Images must be at least {self.minimum_size}x{self.minimum_size} pixels for `{self.name}` with "
                f"the layers {list(self.layers)}, but got {height}x{width}. "
                "Use larger crops (gt_size) or shallower layers (layer_weights)."
            )
        if images.device != self.mean.device:
            raise ValueError(
                f"Images and the loss must be on the same device, but got images on {images.device} and the "
                f"loss on {self.mean.device}. Move the loss: loss.to('{images.device}')."
            )
        if torch.compiler.is_compiling():
            return
        warn_if_emulated(self.precision, images.device)
        # Not when the network is built: it is not known before whether the device is one that prefers it.
        if self.prefers_channels_last(images.device) and not self._is_channels_last:
            with torch.inference_mode(False):  # tensors made in inference mode could not be trained with later
                self.to(memory_format=torch.channels_last)
            self._is_channels_last = True

    @property
    def computes_in_float16(self) -> bool:
        """Whether gradients on their way through the network have float16's range: asked for, or by ``.half()``."""
        return self.precision == "float16" or self.mean.dtype == torch.float16

    def prefers_channels_last(self, device: torch.device) -> bool:
        """Say whether passes are faster with channels last; where not, it is for the user to ask for."""
        return False

    def gains_from_compilation(self, device: torch.device) -> bool:
        """Say whether passes and criterion are faster when they are compiled."""
        return True


def freeze(network: nn.Module) -> nn.Module:
    """Turn every parameter and buffer of ``network`` into a non-persistent buffer, in eval mode."""
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            del module._parameters[name]
            module.register_buffer(name, None if parameter is None else parameter.detach(), persistent=False)
        module._non_persistent_buffers_set.update(module._buffers)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # In eval mode it is its running statistics that count; with this on, loading an empty state
            # dict would find a batch counter of its own making in it and refuse that.
            module.track_running_stats = False
    return network.eval()
