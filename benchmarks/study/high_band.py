"""CLPLoss that sees of SR only what LR cannot show: an arm of the study, a push in the high band alone."""

from __future__ import annotations

from typing import Any

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from benchmarks.study.detail import high_band
from clp_basicsr.hosts.basicsr import CLPLoss
from clp_basicsr.images import resize_to


@LOSS_REGISTRY.register()
class HighBandCLPLoss(CLPLoss):
    """CLPLoss of images that have GT's low band and SR's, or the upsampled LR's, high one."""

    def __init__(self, *arguments: Any, scale: int = 4, **keywords: Any) -> None:
        """Set the band's edge, half of which is left at the Nyquist frequency of ``scale``; the rest is CLPLoss's."""
        super().__init__(*arguments, **keywords)
        self.scale = scale

    def evaluate(self, sr: Tensor, target: Tensor, lr: Tensor | None = None) -> Tensor:
        """Return the loss at weight 1; arguments and errors are those of `clp_basicsr.CLPLoss.evaluate`."""
        lr = self.bound_lr() if lr is None else lr
        upsampled = resize_to(lr, (sr.shape[-2], sr.shape[-1])).clamp(0, 1)
        low = target - high_band(target, self.scale)
        anchor, negative = (low + high_band(images, self.scale) for images in (sr, upsampled))
        return super().evaluate(anchor, target, negative)
