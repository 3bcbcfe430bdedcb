"""neosr 0.1.0 and 1.0: the registered loss, the LR batch of its models, the iteration, the log lines.

Importing any part of neosr makes it parse the command line and fail without ``-opt``. So nothing
happens until `register` is called, best from a one-line file in a checkout, ``neosr/losses/clp_loss.py``::

    from clp_basicsr.hosts.neosr import register; register()

which neosr finds and imports itself, in the middle of its own import.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from torch import Tensor

from clp_basicsr.hosts import message_logger, steps
from clp_basicsr.hosts.holders import HeldLoss
from clp_basicsr.hosts.import_hook import when_imported
from clp_basicsr.hosts.registering import register_own
from clp_basicsr.hosts.serving import serve_models


class CLPLoss(HeldLoss):
    """`clp_basicsr.CLPLoss` as neosr's models call a loss: ``loss(output, gt)``, one scalar."""

    def bound_lr(self) -> Tensor:
        """Return the LR batch of the model, as `clp_basicsr.CLPLoss.bound_lr`.

        Raises:
            ValueError: as there, and for a model with ``eco``.
        """
        model = self.bound_model()
        if self._lr is None and getattr(model, "eco", False):
            raise ValueError(
                "Option `eco` of [train] must be off with CLPLoss, but got eco = true: it trains on mixtures of the "
                "images with the network's own output, so that `lq` is not what the network saw and `gt` is no "
                "ground truth. Remove `eco`, or the loss."
            )
        return super().bound_lr()


class clp_loss(CLPLoss):  # noqa: N801
    """`CLPLoss` under a name in neosr's style."""


LOSSES = (CLPLoss, clp_loss)


def register() -> None:
    """Register `CLPLoss` and `clp_loss` in neosr's LOSS_REGISTRY; calling it again changes nothing.

    Raises:
        ImportError: if neosr is not installed.
        ValueError: if another loss has taken a name, then none is registered; and by neosr itself,
            if the command line has no ``-opt FILE.toml``.
    """
    try:
        registry = importlib.import_module("neosr.utils.registry")
    except ModuleNotFoundError as error:
        if error.name != "neosr":
            raise
        raise ImportError(
            "neosr is not installed here. Call register() from inside its checkout, or pip install neosr (Python 3.12)."
        ) from error
    register_own(registry.LOSS_REGISTRY, "neosr's LOSS_REGISTRY", LOSSES)
    # Called from neosr/losses/, the models are not imported yet.
    when_imported("neosr.models.base", _attach)
    when_imported("neosr.utils.logger", message_logger.attach)


def _attach(base_module: ModuleType) -> None:
    serve_models(base_module.base, [loss.__name__ for loss in LOSSES], _warn)
    steps.attach(base_module.base, _iteration)


def _iteration(model: Any, current_iter: Any = None, *_: Any, **__: Any) -> int | None:
    """Neosr counts batches; an iteration, in the names of its checkpoints, is ``accumulate`` of them."""
    batches = getattr(model, "accum_iters", 1)
    return -(-current_iter // int(batches)) if type(current_iter) is int else None


def _warn(message: str) -> None:
    from neosr.utils import get_root_logger

    get_root_logger().warning(message)
