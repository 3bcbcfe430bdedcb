"""Hugging Face backbones: DINOv2 and DINOv3 by name, any other by its id or checkpoint folder."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clp_basicsr.extractors.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    FeatureExtractor,
    Options,
    check_layers,
    freeze,
)
from clp_basicsr.extractors.dino_models import DEFAULT_LAYER_WEIGHTS, DINO_MODELS
from clp_basicsr.extractors.patches import multiply_patches
from clp_basicsr.extractors.positions import remember_positions
from clp_basicsr.extractors.recomputing import recompute_blocks
from clp_basicsr.extractors.weights import RANDOM, folder_at, hugging_face_cache, seeded_initialisation
from clp_basicsr.images import reflect_pad_to_multiple
from clp_basicsr.messages import reason, shown

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from typing_extensions import Unpack


_PREPROCESSOR = "preprocessor_config.json"
_USUAL = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
# No file is missing: the memory is, or a package that the network needs. A hub's files do not raise the others, either.
_NEVER_OF_FILES = (MemoryError, ImportError)
_NEVER_OF_A_HUB = (RuntimeError, AttributeError, TypeError)
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
        source = _source(name, weights)
        config = _random_config(name) if weights == RANDOM and name in DINO_MODELS else _read_config(name, source)
        _check_family(name, source, config)
        available = tuple(f"block{stage.removeprefix('stage')}" for stage in config.stage_names if stage != "stem")
        default = {layer: weight for layer, weight in DEFAULT_LAYER_WEIGHTS.items() if layer in available}
        chosen = check_layers(name, layers, available, tuple(default))
        with _hub_errors(name, source):
            config = _shortened(config, chosen)
            smallest = _stride(config, len(available))
            multiple = _stride(config, int(chosen[-1].removeprefix("block")))
        mean, std = _statistics(name, source, config) if weights != RANDOM else (IMAGENET_MEAN, IMAGENET_STD)
        super().__init__(name, chosen, default, minimum_size=smallest, mean=mean, std=std, **options)
        self.multiple = multiple
        self.network: Any = _frozen(_network(name, source, config, weights))
        self.recomputes = False
        self.can_hold_half_weights = config.model_type in _DINO_TYPES  # others may leave autocast for some layers

    def recompute(self) -> None:
        """Keep what enters a block, and compute the rest again in the backward pass."""
        self.recomputes = True
        recompute_blocks(self.network)

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


def _source(name: str, weights: str | None) -> str:
    """Return the Hugging Face id or the folder to read from."""
    if weights is not None and weights != RANDOM:
        folder = folder_at(weights)
        if folder is None:
            raise FileNotFoundError(
                f"Argument `weights` for `{name}` must be a checkpoint folder (config.json and model.safetensors), "
                f"but there is no folder {shown(weights)}."
            )
        return str(folder)
    if name in DINO_MODELS:
        return DINO_MODELS[name][0]
    return str(folder_at(name) or name)


def _is_folder(name: str) -> bool:
    return folder_at(name) is not None


def _cached_or_fetched(load: Callable[..., Any], source: str, **keywords: Any) -> Any:
    """Return what is on the disk, and ask the hub only for what is not.

    Transformers asks first, and without a network tries for half a minute before it looks into its own cache. A
    published checkpoint stays what it is, and a run that is resumed should not change its loss.
    """
    try:
        return load(source, local_files_only=True, **keywords)
    except OSError:
        if _is_folder(source):
            raise
    return load(source, local_files_only=False, **keywords)


def _statistics(name: str, source: str, config: PretrainedConfig) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and standard deviation of the images that a checkpoint was trained on: ImageNet's, but for some."""
    if name in DINO_MODELS and not _is_folder(source):
        return IMAGENET_MEAN, IMAGENET_STD
    from transformers.utils import cached_file

    try:
        file = _cached_or_fetched(cached_file, source, filename=_PREPROCESSOR)
        numbers = json.loads(Path(file).read_text(encoding="utf-8"))
        mean, std = (usual if numbers.get(key) is None else numbers[key] for key, usual in _USUAL.items())
        if numbers.get("do_normalize") is False:
            mean, std = [0.0] * 3, [1.0] * 3
        factor = 1 / 255 if numbers.get("rescale_factor") is None else numbers["rescale_factor"]
        factor = 1 if numbers.get("do_rescale") is False else factor
    except OSError as error:
        if not _is_folder(source) or config.model_type not in _DINO_TYPES:
            warnings.warn(
                f"The {_PREPROCESSOR} of '{source}', which says how its images are normalised, could not be had: "
                f"{reason(error)} ImageNet's mean and standard deviation are used.",
                stacklevel=6,
            )
        return IMAGENET_MEAN, IMAGENET_STD
    except (AttributeError, ValueError) as error:
        raise ValueError(f"'{_PREPROCESSOR}' in '{source}' must be a JSON object, but it is not: {error}") from error
    for what, each in (("image_mean", mean), ("image_std", std)):
        if not _is_three_numbers(each) or (what == "image_std" and not all(each)):
            raise ValueError(
                f"`{what}` of {_PREPROCESSOR} in '{source}' must be three numbers, one for each channel, but got "
                f"{shown(each)}."
            )
    if not isinstance(factor, int | float) or not factor:
        raise ValueError(
            f"`rescale_factor` of {_PREPROCESSOR} in '{source}' must be a number other than 0, but got {shown(factor)}."
        )
    # What they are subtracted from and divide: 8-bit values times the factor, where ours are in [0, 1].
    return [each / (255 * factor) for each in mean], [each / (255 * factor) for each in std]


def _is_three_numbers(given: object) -> bool:
    return isinstance(given, list | tuple) and len(given) == 3 and all(isinstance(each, int | float) for each in given)


def _random_config(name: str) -> PretrainedConfig:
    from transformers import AutoConfig

    _, model_type, numbers = DINO_MODELS[name]
    return AutoConfig.for_model(model_type, **numbers)


def _read_config(name: str, source: str) -> PretrainedConfig:
    from transformers import AutoConfig

    if _is_folder(source) and not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(f"Checkpoint folder '{source}' must hold a config.json, but there is none.")
    with _hub_errors(name, source):
        config: PretrainedConfig = _cached_or_fetched(AutoConfig.from_pretrained, source, trust_remote_code=False)
    if not hasattr(config, "stage_names"):
        raise ValueError(
            f"Checkpoint '{source}' must be of a network with a Hugging Face backbone class, such as dinov2, but its "
            f"model type is '{config.model_type}'."
        )
    stages = config.stage_names
    if not isinstance(stages, list) or not all(re.fullmatch(r"stem|stage\d+", str(stage)) for stage in stages):
        raise ValueError(
            f"Checkpoint '{source}' must have stages 'stem', 'stage1', … in its config.json, but got {shown(stages)}."
        )
    return config


def _check_family(name: str, source: str, config: PretrainedConfig) -> None:
    """Refuse DINOv3 where DINOv2 was asked for; tell of another size, which a folder is free to have."""
    if name not in DINO_MODELS:
        return
    _, family, numbers = DINO_MODELS[name]
    if config.model_type != family:
        raise ValueError(
            f"Weights in '{source}' must be those of `{name}` (model type '{family}'), but their model type is "
            f"'{config.model_type}'. To use that network, pass the folder as `model`."
        )
    if config.hidden_size != numbers["hidden_size"]:
        warnings.warn(
            f"The checkpoint '{source}' is {config.hidden_size} wide, while `{name}` is {numbers['hidden_size']} wide "
            "as published; the checkpoint's size is used.",
            stacklevel=5,
        )


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


def _network(name: str, source: str, config: PretrainedConfig, weights: str | None) -> nn.Module:
    from transformers import MODEL_FOR_BACKBONE_MAPPING

    backbone = MODEL_FOR_BACKBONE_MAPPING[type(config)]
    if weights == RANDOM:
        with _hub_errors(name, source), seeded_initialisation():
            network: nn.Module = backbone(config)
            return network
    with _hub_errors(name, source), _quiet_loading():
        network, report = _cached_or_fetched(
            backbone.from_pretrained,
            source,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            weights_only=True,
            dtype=torch.float32,  # `precision` decides, neither the file nor what its config.json says
        )
    _check_loaded(name, source, report)
    return network


def _check_loaded(name: str, source: str, report: dict[str, Any]) -> None:
    """Refuse a network of which a part stayed at its random start."""
    # A backbone's own per-stage norms start as the identity and are in no published checkpoint.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("hidden_states_norms."))
    mismatched = sorted(str(entry) for entry in report["mismatched_keys"])
    if missing or mismatched:
        raise ValueError(
            f"Weights in '{source}' must be those of `{name}`, but {len(missing)} tensors are missing and "
            f"{len(mismatched)} have another shape; the first: {(missing + mismatched)[0]}."
        )


@contextmanager
def _hub_errors(name: str, source: str) -> Iterator[None]:
    """Turn what transformers raises for an absent or broken checkpoint into what to do about it."""
    try:
        yield
    except Exception as error:  # a configuration that is off fails in transformers in as many ways as it has lines
        if isinstance(error, _NEVER_OF_FILES):
            raise
        if _is_folder(source):
            raise ValueError(
                f"Checkpoint folder '{source}' for `{name}` must hold config.json and model.safetensors as Hugging "
                f"Face's save_pretrained writes them, but it cannot be read: {reason(error)}"
            ) from error
        if isinstance(error, _NEVER_OF_A_HUB):
            raise
        folder = source.rsplit("/", 1)[-1]
        others = "" if name in DINO_MODELS else f" {_PREPROCESSOR}"  # a DINO's says what is known
        raise FileNotFoundError(
            f"The weights of `{name}` could not be had from the Hugging Face hub: {reason(error)} On a machine with a "
            f"network run `hf download {source} config.json model.safetensors{others} --local-dir {folder}`, copy the "
            f"folder here, and pass it: weights='path/to/{folder}'. Or put it into the Hugging Face cache "
            f"('{hugging_face_cache()}'). (DINOv3 is gated: accept its licence on its page and log in with "
            "`hf auth login`.)"
        ) from error


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Hide the report on left-over tensors of deeper blocks; `_check_loaded` reads it instead."""
    from transformers.utils import logging

    verbosity, progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress_bar:
            logging.enable_progress_bar()
