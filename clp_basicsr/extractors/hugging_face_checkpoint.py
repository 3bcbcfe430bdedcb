"""A Hugging Face checkpoint: read from a folder or the cache, else fetched from the hub; or why it cannot be had."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from clp_basicsr.extractors.dino_models import DINO_MODELS
from clp_basicsr.extractors.weights import RANDOM, folder_at, hugging_face_cache, seeded_initialisation
from clp_basicsr.messages import reason, shown, warn

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from typing_extensions import Self

PREPROCESSOR = "preprocessor_config.json"
# No file is missing: the memory is, or a package that the network needs. A hub's files do not raise the others, either.
_NEVER_OF_FILES = (MemoryError, ImportError)
_NEVER_OF_A_HUB = (RuntimeError, AttributeError, TypeError)


class Checkpoint(NamedTuple):
    """Where the configuration and the weights of a network are."""

    name: str
    """What was asked for: a key of `DINO_MODELS`, a Hugging Face id, or a folder."""
    source: str
    """The Hugging Face id or the folder to read from."""
    is_random: bool
    """Whether the weights are drawn in its place."""

    @classmethod
    def of(cls, name: str, weights: str | None) -> Self:
        """Return the checkpoint that ``model`` and ``weights`` mean.

        Raises:
            FileNotFoundError: if ``weights`` is a folder that is not there.
        """
        if weights is not None and weights != RANDOM:
            folder = folder_at(weights)
            if folder is None:
                raise FileNotFoundError(
                    f"Argument `weights` for `{name}` must be a checkpoint folder (config.json and model.safetensors), "
                    f"but there is no folder {shown(weights)}."
                )
            return cls(name, str(folder), False)
        source = DINO_MODELS[name][0] if name in DINO_MODELS else str(folder_at(name) or name)
        return cls(name, source, weights == RANDOM)

    @property
    def is_folder(self) -> bool:
        """Whether it is read from a folder that was named, not from the hub or its cache."""
        return folder_at(self.source) is not None

    def fetched(self, load: Callable[..., Any], **keywords: Any) -> Any:
        """Return what ``load`` makes of what is on the disk, and ask the hub only for what is not.

        Transformers asks first, and without a network tries for half a minute before it looks into its own cache. A
        published checkpoint stays what it is, and a run that is resumed should not change its loss.
        """
        try:
            return load(self.source, local_files_only=True, **keywords)
        except OSError:
            if self.is_folder:
                raise
        return load(self.source, local_files_only=False, **keywords)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what transformers raises for an absent or broken checkpoint into what to do about it."""
        try:
            yield
        except Exception as error:  # a configuration that is off fails in transformers in as many ways as it has lines
            if isinstance(error, _NEVER_OF_FILES):
                raise
            if self.is_folder:
                raise ValueError(
                    f"Checkpoint folder '{self.source}' for `{self.name}` must hold config.json and model.safetensors "
                    f"as Hugging Face's save_pretrained writes them, but it cannot be read: {reason(error)}"
                ) from error
            if isinstance(error, _NEVER_OF_A_HUB):
                raise
            raise FileNotFoundError(
                f"The weights of `{self.name}` could not be had from the Hugging Face hub: {reason(error)} "
                f"{_download_advice(self)}"
            ) from error


def read_config(checkpoint: Checkpoint) -> PretrainedConfig:
    """Return the configuration of the whole network.

    Raises:
        ValueError: for a damaged checkpoint, or one of another network.
        FileNotFoundError: if it cannot be had.
    """
    if checkpoint.is_random and checkpoint.name in DINO_MODELS:
        return _published_config(checkpoint.name)
    config = _config(checkpoint)
    _check_family(checkpoint, config)
    return config


def read_network(checkpoint: Checkpoint, config: PretrainedConfig) -> nn.Module:
    """Return the network of a configuration, float32, with the checkpoint's weights.

    Raises:
        ValueError: for a damaged checkpoint, or one of another network.
        FileNotFoundError: if it cannot be had.
    """
    from transformers import MODEL_FOR_BACKBONE_MAPPING

    backbone = MODEL_FOR_BACKBONE_MAPPING[type(config)]
    if checkpoint.is_random:
        with checkpoint.errors(), seeded_initialisation():
            network: nn.Module = backbone(config)
            return network
    with checkpoint.errors(), _quiet_loading():
        network, report = checkpoint.fetched(
            backbone.from_pretrained,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            weights_only=True,
            dtype=torch.float32,  # `precision` decides, neither the file nor what its config.json says
        )
    _check_loaded(checkpoint, report)
    return network


def _published_config(name: str) -> PretrainedConfig:
    from transformers import AutoConfig

    _, model_type, numbers = DINO_MODELS[name]
    return AutoConfig.for_model(model_type, **numbers)


def _config(checkpoint: Checkpoint) -> PretrainedConfig:
    from transformers import AutoConfig

    source = checkpoint.source
    if checkpoint.is_folder and not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(f"Checkpoint folder '{source}' must hold a config.json, but there is none.")
    with checkpoint.errors():
        config: PretrainedConfig = checkpoint.fetched(AutoConfig.from_pretrained, trust_remote_code=False)
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


def _check_family(checkpoint: Checkpoint, config: PretrainedConfig) -> None:
    """Refuse DINOv3 where DINOv2 was asked for; tell of another size, which a folder is free to have."""
    name, source = checkpoint.name, checkpoint.source
    if name not in DINO_MODELS:
        return
    _, family, numbers = DINO_MODELS[name]
    if config.model_type != family:
        raise ValueError(
            f"Weights in '{source}' must be those of `{name}` (model type '{family}'), but their model type is "
            f"'{config.model_type}'. To use that network, pass the folder as `model`."
        )
    if config.hidden_size != numbers["hidden_size"]:
        warn(
            f"The checkpoint '{source}' is {config.hidden_size} wide, while `{name}` is {numbers['hidden_size']} wide "
            "as published; the checkpoint's size is used."
        )


def _check_loaded(checkpoint: Checkpoint, report: dict[str, Any]) -> None:
    """Refuse a network of which a part stayed at its random start."""
    # A backbone's own per-stage norms start as the identity and are in no published checkpoint.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("hidden_states_norms."))
    mismatched = sorted(str(entry) for entry in report["mismatched_keys"])
    if missing or mismatched:
        raise ValueError(
            f"Weights in '{checkpoint.source}' must be those of `{checkpoint.name}`, but {len(missing)} tensors are "
            f"missing and {len(mismatched)} have another shape; the first: {(missing + mismatched)[0]}."
        )


def _download_advice(checkpoint: Checkpoint) -> str:
    folder = checkpoint.source.rsplit("/", 1)[-1]
    others = "" if checkpoint.name in DINO_MODELS else f" {PREPROCESSOR}"  # a DINO's says what is known
    return (
        f"On a machine with a network run `hf download {checkpoint.source} config.json model.safetensors{others} "
        f"--local-dir {folder}`, copy the folder here, and pass it: weights='path/to/{folder}'. Or put it into the "
        f"Hugging Face cache ('{hugging_face_cache()}'). (DINOv3 is gated: accept its licence on its page and log in "
        "with `hf auth login`.)"
    )


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
