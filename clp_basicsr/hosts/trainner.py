"""traiNNer-redux: a host that multiplies by the loss's weight itself, in most of its versions."""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

from torch import Tensor

from clp_basicsr.hosts import steps
from clp_basicsr.hosts.holders import HeldLoss, remember
from clp_basicsr.hosts.import_hook import when_imported
from clp_basicsr.hosts.registering import register_own


class CLPLoss(HeldLoss):
    """`clp_basicsr.CLPLoss` for hosts that compute ``loss(sr, target) * loss.loss_weight``.

    Matches traiNNer/models/sr_model.py of traiNNer-redux, which also divides by ``accum_iters``; older ones, as of
    commit 001f5a34, leave the weight to the loss.
    """

    host_multiplies = True

    def forward(self, sr: Tensor, target: Tensor, lr: Tensor | None = None) -> Tensor:
        """Return the loss, without its ``loss_weight`` where the host multiplies by that, 0-dim.

        ``lr`` is read from the model that holds this loss.

        Args:
            sr: ``(N, 3, H, W)``, about [0, 1].
            target: ``(N, 3, H, W)``, values in [0, 1].
            lr: ``(N, 3, h, w)``; None in traiNNer-redux, where nobody passes it.

        Raises:
            TypeError: as `clp_basicsr.CLPLoss.forward`.
            ValueError: as `clp_basicsr.CLPLoss.forward`.
        """
        value = super().forward(sr, target, lr)
        return value / self.loss_weight if self.host_multiplies else value


def register() -> None:
    """Register `CLPLoss` in traiNNer's LOSS_REGISTRY; calling it again changes nothing.

    Meant for a file ``traiNNer/losses/clp_loss.py``, which traiNNer finds and imports itself.

    Raises:
        ImportError: if traiNNer does not import.
        ValueError: if another loss has taken the name.
    """
    try:
        registry = importlib.import_module("traiNNer.utils.registry").LOSS_REGISTRY
    except ModuleNotFoundError as error:
        if error.name != "traiNNer":
            raise
        raise ImportError("traiNNer-redux is not installed here. Call register() from inside its checkout.") from error
    register_own(registry, "traiNNer's LOSS_REGISTRY", [CLPLoss])
    # The models import the losses, so this runs in the middle of their import.
    when_imported("traiNNer.models.base_model", lambda module: remember(module.BaseModel))
    when_imported("traiNNer.models.sr_model", _attach_to_sr_model)


def _attach_to_sr_model(sr_model_module: ModuleType) -> None:
    _see_who_multiplies(sr_model_module)
    steps.attach_to_one(sr_model_module.SRModel, _iteration)


def _iteration(_: Any, current_iter: int, current_accum_iter: int = 0, apply_gradient: bool = True, **more: Any) -> int:
    """Its train.py counts an iteration with the last of the batches that are accumulated for it."""
    return current_iter if apply_gradient else current_iter + 1


def _see_who_multiplies(sr_model_module: ModuleType) -> None:
    try:
        source = inspect.getsource(sr_model_module.SRModel)
    except (OSError, TypeError):  # it came without
        return
    CLPLoss.host_multiplies = re.search(r"\bloss\.loss_weight\b", source) is not None
