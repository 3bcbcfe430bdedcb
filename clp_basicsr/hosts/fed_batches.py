"""What a model of BasicSR keeps of the batch that it is fed: the batch's own negatives, and no GT of an earlier one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from clp_basicsr.hosts.overrides import wrap_overrides


def attach(base_model: Any) -> None:
    """Let models keep ``neg`` of `PairedNegativeDataset` on their device, and forget GT before a batch without; once.

    Args:
        base_model: BasicSR's ``BaseModel``.
    """
    if getattr(base_model, "_clp_keeps_negatives", False):
        return
    wrap_overrides(base_model, "feed_data", _keeping)
    base_model._clp_keeps_negatives = True


def _keeping(original: Callable[..., None]) -> Callable[..., None]:
    def feed_data(self: Any, data: Mapping[str, Any], *more: Any, **named: Any) -> None:
        original(self, data, *more, **named)
        fed = vars(self).pop("_clp_fed_gt", None)
        gt = vars(self).get("gt")
        if "gt" in data:
            self._clp_fed_gt = weakref.ref(gt) if isinstance(gt, Tensor) else None
        elif fed is not None and gt is fed():
            vars(self).pop("gt", None)  # of the last training step: a validation without GT would be compared with it
        if isinstance(data.get("neg"), Tensor):
            self.neg = data["neg"].to(self.device)

    return feed_data
