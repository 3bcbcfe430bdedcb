"""traiNNer-redux: a host that multiplies by the loss's weight itself, in most of its versions."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from torch import Tensor

from clp_basicsr.gradients import PixelLoss, set_pixel_loss
from clp_basicsr.hosts import steps
from clp_basicsr.hosts.holders import HeldLoss, held_losses, remember
from clp_basicsr.hosts.import_hook import when_imported
from clp_basicsr.hosts.registering import register_own
from clp_basicsr.hosts.weighting import host_multiplies

_PIXEL_LOSSES = ("L1Loss", "MSELoss", "CharbonnierLoss")


class CLPLoss(HeldLoss):
    """`clp_basicsr.CLPLoss` for hosts that compute ``loss(sr, target) * loss.loss_weight``.

    Matches traiNNer/models/sr_model.py of traiNNer-redux, which also divides by ``accum_iters``; older ones, as of
    commit 001f5a34, leave the weight to the loss.
    """

    host_multiplies = True
    """Whether the host multiplies by ``loss_weight``; looked up in its source at each step."""

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
    when_imported("traiNNer.models.base_model", _attach)
    when_imported("torch._dynamo", _leave_out_of_graphs)


def _attach(base_model_module: ModuleType) -> None:
    remember(base_model_module.BaseModel)
    steps.attach(base_model_module.BaseModel, _iteration, _prepare)


def _leave_out_of_graphs(dynamo: ModuleType) -> None:
    """Let ``use_compile`` pass over the loss, which counts, measures and draws; it has `compile` for its networks."""
    CLPLoss.forward = dynamo.disable(CLPLoss.forward)  # type: ignore[method-assign]


def _prepare(model: Any) -> None:
    losses = [each for each in held_losses(model).values() if isinstance(each, CLPLoss)]
    multiplies = host_multiplies(type(model))  # type: ignore[arg-type]  # mypy takes no class for hashable
    for loss in losses:
        loss.host_multiplies = multiplies
        _check_negatives(loss, model)
    if losses:
        set_pixel_loss(model, _pixel_loss(model, multiplies))


def _iteration(
    model: Any, current_iter: Any = None, current_accum_iter: Any = 0, apply_gradient: Any = True, *_: Any, **__: Any
) -> int | None:
    """Its train.py counts an iteration with the last of the batches that are accumulated for it."""
    return int(current_iter) + (not apply_gradient) if type(current_iter) is int else None


def _pixel_loss(model: Any, multiplies: bool) -> PixelLoss | None:
    """Return the model's loss of pixels, as strong as it counts; None where it has none."""
    for loss in getattr(model, "losses", {}).values():
        if type(getattr(loss, "_orig_mod", loss)).__name__ in _PIXEL_LOSSES:
            weight = abs(loss.loss_weight) if multiplies else 1.0
            return lambda sr, target: loss(sr, target) * weight
    return None


def _check_negatives(loss: CLPLoss, model: Any) -> None:
    copies = [source.name for source in loss.sources if source.resembles_sr]
    formats = {getattr(model.opt, f"{side}_pixel_format", "rgb") for side in ("input", "output")} if copies else set()
    if formats - {"rgb"}:
        raise ValueError(
            f"Argument `negatives` must be without {copies} here: they call a copy of `net_g` with `lq`, but this "
            f"model has `input_pixel_format` and `output_pixel_format` {sorted(formats)}. With 'rgb' it works."
        )
