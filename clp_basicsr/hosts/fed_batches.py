"""What a model of BasicSR keeps of the batch that it is fed: the batch's own negatives, and no GT of an earlier one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from clp_basicsr.hosts.overrides import wrap_overrides

_fed_gt: weakref.WeakKeyDictionary[Any, weakref.ref[Tensor]] = weakref.WeakKeyDictionary()


def attach(base_model: Any) -> None:
    """Let models keep ``neg`` of `PairedNegativeDataset` on their device, and forget GT before a batch without; once.

    Args:
        base_model: BasicSR's ``BaseModel``.
    """
    wrap_overrides(base_model, "feed_data", _feed)


def _feed(model: Any, feed_data: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    result = feed_data(*args, **kwargs)
    batch = next(iter((*args, *kwargs.values())), None)
    if isinstance(batch, Mapping):  # as BasicSR's data sets give it; others have ways of their own
        _keep(model, batch)
    return result


def _keep(model: Any, batch: Mapping[str, Any]) -> None:
    fed, gt = _fed_gt.pop(model, None), vars(model).get("gt")
    if "gt" in batch and isinstance(gt, Tensor):
        _fed_gt[model] = weakref.ref(gt)
    elif "gt" not in batch and fed is not None and gt is not None and gt is fed():
        del model.gt  # of the last training step: a validation without GT would be compared with it
    if isinstance(batch.get("neg"), Tensor):
        model.neg = batch["neg"].to(model.device)
