"""traiNNer-redux: a host that multiplies by the loss's weight itself."""

from __future__ import annotations

import importlib

from torch import Tensor

from clp_basicsr.hosts.holders import HeldLoss, remember
from clp_basicsr.hosts.import_hook import when_imported
from clp_basicsr.hosts.registering import register_own


class CLPLoss(HeldLoss):
    """`clp_basicsr.CLPLoss` for hosts that compute ``loss(sr, target) * loss.loss_weight``.

    Matches traiNNer/models/sr_model.py of traiNNer-redux, which also divides by ``accum_iters``.
    """

    def forward(self, sr: Tensor, target: Tensor, lr: Tensor | None = None) -> Tensor:
        """Return the loss without its ``loss_weight``, 0-dim; ``lr`` is read from the model that holds this loss.

        Args:
            sr: ``(N, 3, H, W)``, about [0, 1].
            target: ``(N, 3, H, W)``, values in [0, 1].
            lr: ``(N, 3, h, w)``; None in traiNNer-redux, where nobody passes it.

        Raises:
            TypeError: as `clp_basicsr.CLPLoss.forward`.
            ValueError: as `clp_basicsr.CLPLoss.forward`.
        """
        return super().forward(sr, target, lr) / self.loss_weight


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
