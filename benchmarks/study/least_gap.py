"""CLPLoss with another least gap: an arm of the study, for what flat crops do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from basicsr.utils.registry import LOSS_REGISTRY

from clp_basicsr.criteria.triplet import RelativeTriplet
from clp_basicsr.hosts.basicsr import CLPLoss


@LOSS_REGISTRY.register()
class LeastGapCLPLoss(CLPLoss):
    """CLPLoss in which a gap counts as another share of GT's features at least."""

    def __init__(self, *arguments: Any, least_gap: float, **keywords: Any) -> None:
        """Set the share, 0.1 in CLPLoss, none with 0; the rest is CLPLoss's."""
        super().__init__(*arguments, **keywords)
        criterion = cast(RelativeTriplet, self.criterion)
        self.criterion = replace(criterion, distance=criterion.distance._replace(least_gap=least_gap))
