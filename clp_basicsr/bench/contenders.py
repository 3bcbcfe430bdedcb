"""What can be measured, by name: ``vgg``, ``vgg:bfloat16:compile``, ``perceptual``, ``three_pass:dinov2_base``."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from clp_basicsr.bench.baselines import Step, lpips_vgg, perceptual_loss, three_pass_dinov2, three_pass_vgg
from clp_basicsr.extractors import PACKAGES
from clp_basicsr.extractors.dino_models import DINO_MODELS
from clp_basicsr.extractors.precision import PRECISIONS
from clp_basicsr.loss import CLPLoss

DEFAULT = (
    "perceptual", "three_pass:vgg", "lpips", "vgg", "vgg:bfloat16", "vgg:compile", "efficientnet_lite0",
    "three_pass:dinov2_base", "dinov2_base", "dinov2_base:bfloat16", "dinov2_base:compile", "dinov2_small",
)  # fmt: skip

_CHANNELS_LAST = "channels_last"


@dataclass(frozen=True)
class Contender:
    """A loss that was built."""

    name: str
    network: nn.Module
    step: Step

    @property
    def rival(self) -> str:
        """Whose cost its own is divided by."""
        return "three_pass:dinov2_base" if "dinov2_base" in self.name else "perceptual"


def build(name: str, device: torch.device, **keywords: Any) -> Contender:
    """Build a contender; ``keywords`` go to `CLPLoss`.

    Raises:
        ImportError: if its package is not installed.
        ValueError: if there is no such contender.
    """
    model, settings = _model_and_settings(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that untrained weights are no perceptual loss
        network, step = _build(name, model, [each for each in settings if each != _CHANNELS_LAST], keywords)
    network.to(device)
    if _CHANNELS_LAST in settings:
        network.to(memory_format=torch.channels_last)
    return Contender(name, network, step)


def _model_and_settings(name: str) -> tuple[str, list[str]]:
    first, *rest = name.split(":")
    return (f"{first}:{rest[0]}", rest[1:]) if first in PACKAGES and rest else (first, rest)


def _build(name: str, model: str, settings: list[str], keywords: dict[str, Any]) -> tuple[nn.Module, Step]:
    if model in ("perceptual", "lpips"):
        if settings:
            raise ValueError(f"Contender '{model}' must have no setting but {_CHANNELS_LAST}, but got '{name}'.")
        return perceptual_loss() if model == "perceptual" else lpips_vgg()
    if model == "three_pass":
        return three_pass_vgg() if settings == ["vgg"] else three_pass_dinov2(_dinov2(name, settings))
    loss = _clp(name, model, settings, keywords)
    return loss, loss


def _dinov2(name: str, settings: list[str]) -> str:
    if len(settings) != 1 or not (settings[0] in DINO_MODELS and settings[0].startswith("dinov2")):
        raise ValueError(f"Contender must be 'three_pass:vgg' or 'three_pass:dinov2_…', but got '{name}'.")
    return settings[0]


def _clp(name: str, model: str, settings: list[str], keywords: dict[str, Any]) -> CLPLoss:
    chosen: dict[str, Any] = {"diagnostics": False, **keywords}
    for setting in settings:
        repeated = ("precision" if setting in PRECISIONS else setting.partition("=")[0]) in chosen
        if repeated:
            raise ValueError(f"Contender must say each thing once, but '{name}' repeats '{setting}' or contradicts it.")
        if setting in PRECISIONS:
            chosen["precision"] = setting
        elif setting in ("compile", "checkpoint"):
            chosen[setting] = True
        elif re.fullmatch(r"chunk=\d+", setting):
            chosen["chunk"] = int(setting.removeprefix("chunk="))
        else:
            raise ValueError(
                "Contender must be a model with settings among "
                f"{[*PRECISIONS, 'compile', 'checkpoint', 'chunk=N', _CHANNELS_LAST]}, but got '{name}'."
            )
    return CLPLoss(model, weights="random", **chosen)
