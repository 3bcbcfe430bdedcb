"""Hugging Face backbones: DINOv2 and DINOv3 by name, any other by its id or checkpoint folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from clp_basicsr.extractors.base import FeatureExtractor, Options, freeze
from clp_basicsr.extractors.dino_models import DEFAULT_LAYER_WEIGHTS, DINO_MODELS
from clp_basicsr.extractors.hugging_face_checkpoint import Checkpoint, read_config, read_network
from clp_basicsr.extractors.hugging_face_images import statistics
from clp_basicsr.extractors.layers import check_layers
from clp_basicsr.extractors.patches import multiply_patches
from clp_basicsr.extractors.positions import remember_positions
from clp_basicsr.extractors.recomputing import recompute_blocks
from clp_basicsr.extractors.weights import seeded_initialisation
from clp_basicsr.images import reflect_pad_to_multiple

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from typing_extensions import Unpack

_DINO_TYPES = {kind for _, kind, _ in DINO_MODELS.values()}


class HuggingFaceBackbone(FeatureExtractor):
    """Block outputs of a Hugging Face backbone as maps, final LayerNorm applied where it has one.

    ``blockK`` is the backbone's ``stageK``: for DINOv2 the output of its K-th block, patch tokens
    only. Transformers are cut behind the deepest block used, and images are reflect-padded to whole
    patches, because the patch embedding drops what does not fill one.

    Source: Oquab et al., "DINOv2" (2023); ``transformers.Dinov2Backbone``.
    """

    def __init__(
        self,
        name: str = "dinov2_base",
        layers: Sequence[str] | None = None,
        weights: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Build the backbone up to the deepest of ``layers``.

        Args:
            name: a key of `DINO_MODELS`, a Hugging Face id, or a checkpoint folder.
            layers: ``block1`` … ``blockN``; None for those of `DEFAULT_LAYER_WEIGHTS` it has.
            weights: None (published weights), a checkpoint folder, or ``"random"``.
            **options: as in `FeatureExtractor`.

        Raises:
            ValueError: for an unknown layer, a damaged checkpoint or one of another network.
            FileNotFoundError: if the checkpoint cannot be had.
        """
        checkpoint = Checkpoint.of(name, weights)
        config = read_config(checkpoint)
        available = tuple(f"block{stage.removeprefix('stage')}" for stage in config.stage_names if stage != "stem")
        default = {layer: weight for layer, weight in DEFAULT_LAYER_WEIGHTS.items() if layer in available}
        chosen = check_layers(name, layers, available, tuple(default))
        with checkpoint.errors():
            config = _shortened(config, chosen)
            smallest = _stride(config, len(available))
            multiple = _stride(config, int(chosen[-1].removeprefix("block")))
        is_dino = config.model_type in _DINO_TYPES
        mean, std = statistics(checkpoint, imagenet_if_absent=is_dino)
        super().__init__(name, chosen, default, minimum_size=smallest, mean=mean, std=std, **options)
        self.multiple = multiple
        self.network: Any = _frozen(read_network(checkpoint, config))
        self.recomputes = False
        self.can_hold_half_weights = is_dino  # others may leave autocast for some layers

    def recompute(self) -> None:
        """Keep what enters a block, and compute the rest again in the backward pass."""
        self.recomputes = True
        super().recompute()

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Return the chosen blocks' maps of normalised images ``(N, 3, H, W)``."""
        maps = self.network(reflect_pad_to_multiple(images, self.multiple)).feature_maps
        return dict(zip(self.layers, maps))

    def __getstate__(self) -> dict[str, Any]:
        """Keep the network as what it is made of: transformers hangs functions on it that do not pickle."""
        modules = {name: module for name, module in self._modules.items() if name != "network"}
        parts = (type(self.network), self.network.config, dict(self.network.named_buffers(remove_duplicate=False)))
        return {**self.__dict__, "_modules": modules, "_parts": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the network again from what it is made of."""
        network_class, config, tensors = state.pop("_parts")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        with seeded_initialisation():
            self.network = _frozen(network_class(config))
        if self.recomputes:
            recompute_blocks(self.network)
        for name, tensor in tensors.items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.network.get_submodule(owner), leaf, tensor)


def _frozen(network: nn.Module) -> nn.Module:
    multiply_patches(freeze(network))
    remember_positions(network)
    return network


def _shortened(config: PretrainedConfig, layers: Sequence[str]) -> PretrainedConfig:
    """Return the configuration that gives ``layers`` and, where it can, ends with the deepest."""
    numbers = config.to_dict()
    for derived in ("stage_names", "out_features", "out_indices"):
        numbers.pop(derived, None)
    if _is_transformer_of_equal_blocks(config):
        numbers["num_hidden_layers"] = int(layers[-1].removeprefix("block"))
    stages = [layer.replace("block", "stage") for layer in layers]
    shortened: PretrainedConfig = type(config)(**numbers, out_features=stages)
    return shortened


def _is_transformer_of_equal_blocks(config: PretrainedConfig) -> bool:
    return not _is_hierarchical(config) and getattr(config, "num_hidden_layers", None) == len(config.stage_names) - 1


def _is_hierarchical(config: PretrainedConfig) -> bool:
    return hasattr(config, "depths")


def _stride(config: PretrainedConfig, stage: int) -> int:
    """Return how many pixels, in height and width, one position of a stage's map stands for."""
    # Hierarchical networks without a patch size (ResNet, DINOv3's ConvNeXt) have a stem of stride 4.
    patch_size = getattr(config, "patch_size", 4 if _is_hierarchical(config) else 1)
    pixels = int(patch_size if isinstance(patch_size, int) else max(patch_size))
    return pixels * int(2 ** (stage - 1)) if _is_hierarchical(config) else pixels
