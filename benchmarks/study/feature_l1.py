"""BasicSR's PerceptualLoss on the networks of CLPLoss: an arm of the study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from clp_basicsr.extractors import build_extractor


@LOSS_REGISTRY.register()
class FeatureL1Loss(nn.Module):
    """The sum over layers of the weighted mean absolute difference of features, as in basicsr/losses/basic_loss.py."""

    def __init__(
        self,
        model: str,
        *,
        weights: str | Path | None = None,
        layer_weights: Mapping[str, float] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.extractor = build_extractor(model, None if layer_weights is None else list(layer_weights), weights)
        self.layer_weights = layer_weights or self.extractor.default_layer_weights
        self.loss_weight = loss_weight

    def forward(self, sr: Tensor, target: Tensor) -> tuple[Tensor, None]:
        """Return the loss and, in the style loss's place, None: BasicSR's contract."""
        features, should_be = self.extractor(sr), self.extractor(target.detach())
        layers = [weight * F.l1_loss(features[name], should_be[name]) for name, weight in self.layer_weights.items()]
        return self.loss_weight * sum(layers[1:], start=layers[0]), None
