"""How large the loss's gradient at the SR image is, beside the pixel loss's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clp_basicsr.autograd_graphs import walked_twice
from clp_basicsr.binding import BoundModule
from clp_basicsr.messages import reason, warn

PixelLoss = Callable[[Tensor, Tensor], Tensor]
_PIXEL_LOSS = "_clp_pixel_loss"


def set_pixel_loss(model: Any, pixel_loss: PixelLoss | None) -> None:
    """Measure beside ``pixel_loss`` of SR and GT: for hosts whose models have none in ``cri_pix``."""
    setattr(model, _PIXEL_LOSS, pixel_loss)


def squared_norms(value: Tensor, sr: Tensor, target: Tensor, model: Any | None) -> Tensor:
    """Return the squared gradient norms of the pixel loss and of ``value`` at ``sr``, shape ``(2,)``.

    Args:
        value: a loss, 0-dim, with its graph, which is kept.
        sr: the images that ``value`` was computed from, requiring gradient.
        target: GT of the same shape.
        model: the host's model; its ``cri_pix`` is the pixel loss, L1 where there is none.
    """
    with walked_twice(), torch.autocast(value.device.type, enabled=False):  # a host's is for its own network
        (own,) = torch.autograd.grad(value, sr, retain_graph=True)
    return torch.stack((squared_norm_of_pixel_loss(sr, target, model), own.float().square().sum()))


def squared_norm_of_pixel_loss(sr: Tensor, target: Tensor, model: Any | None) -> Tensor:
    """Return the squared gradient norm of the pixel loss at ``sr``, 0-dim; arguments as in `squared_norms`."""
    leaf = sr.detach().requires_grad_()
    target = target.clone() if target.is_inference() else target  # autograd does not take those of inference mode
    with _kept_as_it_is():
        (pixel,) = torch.autograd.grad(_pixel_loss(leaf, target, model), leaf)
    return pixel.float().square().sum()


def _kept_as_it_is() -> AbstractContextManager[None]:
    """Hide what is kept inside from torch.utils.checkpoint around it, which counts what it has to compute again."""
    # Detached: what an operation keeps of its own result would keep the operation, for ever if nobody walks there.
    hooks: AbstractContextManager[None] = torch.autograd.graph.saved_tensors_hooks(Tensor.detach, lambda each: each)
    return hooks


def _pixel_loss(sr: Tensor, target: Tensor, model: Any | None) -> Tensor:
    own = getattr(model, _PIXEL_LOSS, None) or getattr(model, "cri_pix", None)
    if own is None:
        return F.l1_loss(sr, target)
    value, problem = _asked(own, sr, target)
    if value is not None:
        return value
    warn(
        "CLPLoss measures its gradient beside that of the model's pixel loss, which must be called as "
        f"`cri_pix(sr, gt)` and give a number, but this {problem}. L1 stands in for it, in `auto_weight` and in "
        "`gradient_ratio`."
    )
    return F.l1_loss(sr, target)


def _asked(own: Any, sr: Tensor, target: Tensor) -> tuple[Tensor | None, str]:
    """Return what a pixel loss says, or None and why that is none."""
    if isinstance(own, nn.Module) and any(isinstance(each, BoundModule) for each in own.modules()):
        return None, "is itself a CLPLoss, or holds one"
    try:
        value = own(sr, target)
    except (TypeError, NotImplementedError) as error:  # it wants a mask, is a list, is a ModuleList
        return None, f"fails: {reason(error)}"
    problem = _why_no_loss(value)
    return None if problem else value, problem


def _why_no_loss(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"gives a {type(value).__name__}"
    if value.numel() != 1:
        return f"gives {value.numel()} numbers"
    return "" if value.requires_grad else "gives one without gradient"
