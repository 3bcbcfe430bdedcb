"""Feature extractors by name."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from clp_basicsr.extractors.base import FeatureExtractor, Options
from clp_basicsr.extractors.dino_models import DINO_MODELS
from clp_basicsr.extractors.efficientnet_lite import EFFICIENTNET_LITE, EfficientNetLite
from clp_basicsr.extractors.hugging_face import HuggingFaceBackbone
from clp_basicsr.extractors.precision import round_weights
from clp_basicsr.extractors.random_convs import RandomConvs
from clp_basicsr.extractors.timm_features import TimmFeatures
from clp_basicsr.extractors.torchvision_nodes import TorchvisionNodes
from clp_basicsr.extractors.trial import try_out
from clp_basicsr.extractors.vgg import VGG19
from clp_basicsr.extractors.weights import RANDOM, folder_at
from clp_basicsr.messages import not_a_choice, shown, warn

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["NETWORKS", "FeatureExtractor", "build_extractor"]

_one_at_a_time = threading.RLock()


class _Build(Protocol):
    def __call__(
        self, name: str, layers: Sequence[str] | None, weights: str | None, **options: Unpack[Options]
    ) -> FeatureExtractor: ...


ALIASES = {"vgg": "vgg19", "dinov2": "dinov2_base", "dinov2_reg": "dinov2_base_reg", "dinov3": "dinov3_base"}
NETWORKS: dict[str, _Build] = {
    "vgg19": VGG19,
    **dict.fromkeys(DINO_MODELS, HuggingFaceBackbone),
    **dict.fromkeys(EFFICIENTNET_LITE, EfficientNetLite),
    "random_convs": RandomConvs,
}
PACKAGES: dict[str, _Build] = {"torchvision": TorchvisionNodes, "timm": TimmFeatures}
"""Packages of many networks; ``model`` is ``package:name``."""


def build_extractor(
    model: str | Path = "dinov2",
    layers: Sequence[str] | None = None,
    weights: str | Path | None = None,
    *,
    use_input_norm: bool = True,
    precision: str = "float32",
) -> FeatureExtractor:
    """Return a frozen network that turns images ``(N, 3, H, W)`` in [0, 1] into named feature maps.

    Args:
        model: a key of `NETWORKS` or `ALIASES`, a key of `PACKAGES` with a name ("torchvision:resnet50"), a
            Hugging Face id ("owner/name"), or a checkpoint folder.
        layers: names of the layers to return; None for the network's defaults.
        weights: None (published weights), a path, or ``"random"``.
        use_input_norm: normalise with the mean and standard deviation that the network was trained with.
        precision: "float32", "bfloat16", "float16" or "auto".

    Raises:
        TypeError: if ``weights`` is no path.
        ValueError: if there is no such network or layer, or the weights are of another one.
        FileNotFoundError: if the weights cannot be had.
        ImportError: if the network's package is not installed.
    """
    name = canonical_name(model)
    build = _builder(name)
    path = _path_of(weights)
    if path == RANDOM:
        warn(
            f"weights='random': `{name}` is untrained. The loss has the right cost and shapes, but it is no "
            "perceptual loss; use it for tests and timings only."
        )
    home = torch.empty(0).device  # the default device, which neosr and others set to the GPU
    # Built there, a Hugging Face network would need `accelerate`, and an untrained one would be another one.
    with torch.device("cpu"), _float32_by_default():
        extractor = build(
            name,
            layers,
            path,
            use_input_norm=use_input_norm,
            precision=precision,
        )
        try_out(extractor)
        if extractor.can_hold_half_weights:
            round_weights(extractor, precision)
    return extractor.to(home)


@contextmanager
def _float32_by_default() -> Iterator[None]:
    """Build in the precision that a network is asked for in, whatever a host has made torch's default.

    That is one for all threads: others see float32 meanwhile.
    """
    with _one_at_a_time:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _path_of(weights: object) -> str | None:
    if weights is not None and not isinstance(weights, (str, Path)):
        raise TypeError(f"Argument `weights` must be a path, 'random' or null, but got {shown(weights)}.")
    if isinstance(weights, Path) and str(weights) == RANDOM:
        return os.path.join(os.curdir, weights)  # a Path is a file, even one of that name
    if weights == "":
        raise ValueError("Argument `weights` must be a path, 'random' or null, but got ''.")
    return None if weights is None else str(weights)


def canonical_name(model: Any) -> Any:
    """Return the one name of a network that has several: ``"vgg19"`` for ``"vgg"``; of a path its text."""
    name = str(model) if isinstance(model, Path) else model
    return ALIASES.get(name, name) if isinstance(name, str) else name


def _builder(model: object) -> _Build:
    if isinstance(model, str):
        package, colon, _ = model.partition(":")
        if colon and package in PACKAGES:
            return PACKAGES[package]
        if model in NETWORKS:
            return NETWORKS[model]
        if _is_hugging_face(model):
            return HuggingFaceBackbone
    others = ", ".join(f"'{package}:NAME'" for package in PACKAGES)
    raise ValueError(
        not_a_choice(
            "model",
            model,
            [*ALIASES, *NETWORKS],
            f", {others}, a Hugging Face id 'owner/name' or a checkpoint folder",
        )
    )


def _is_hugging_face(model: str) -> bool:
    return folder_at(model) is not None or (model.count("/") == 1 and not model.startswith((".", "/", "~")))
