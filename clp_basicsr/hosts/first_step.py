"""What cannot work says so in the first iteration, and not when a GAN's warm-up is over."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from clp_basicsr.hosts.holders import held_losses
from clp_basicsr.loss import CLPLoss

_HOSTS = ("basicsr", "realesrgan", "neosr")
_checked: weakref.WeakSet[Any] = weakref.WeakSet()


def check_first_step(model: Any, loss_types: Sequence[str], warn: Callable[[str], None]) -> None:
    """Check a model once, at the end of its first training step.

    Args:
        model: a host's model with ``opt``, and ``output`` and ``gt`` of the step.
        loss_types: the names under which option files ask for the loss.
        warn: says in the run's log that the model has not built the loss it was asked for.

    Raises:
        TypeError: as `clp_basicsr.CLPLoss.forward`, also for a loss that this step left out, where the step is one of
            the host's own; in a step of somebody else's, which may call the loss with other images, it is warned of.
        ValueError: as above.
    """
    if model in _checked:
        return
    _checked.add(model)
    held = held_losses(model)
    _check_that_all_are_built(model, len(held), _options_asking_for(loss_types, model), warn)
    total = _total_iter(model.opt)
    for criterion in held.values():
        if criterion.schedule.start_iter >= total:
            warn(
                f"CLPLoss has `start_iter: {criterion.schedule.start_iter}`, but the run has `total_iter: {total:g}`: "
                "it trains without it."
            )
    sr, target = getattr(model, "output", None), getattr(model, "gt", None)
    if isinstance(sr, Tensor) and isinstance(target, Tensor):
        for criterion in held.values():
            _rehearse(criterion, sr, target, model, warn)


def _total_iter(opt: Mapping[str, Any]) -> float:
    """Return how long the run is: it stands below ``train`` in BasicSR, below ``logger`` in neosr."""
    sections = (opt.get(name) or {} for name in ("train", "logger"))
    return next((float(each["total_iter"]) for each in sections if each.get("total_iter") is not None), math.inf)


def _check_that_all_are_built(
    model: Any, built: int, asked: Sequence[tuple[str, str]], warn: Callable[[str], None]
) -> None:
    who = type(model).__name__
    names = [name for name, _ in asked]
    if built and built < len(asked):
        warn(
            f"{who} has built {built} of the {len(asked)} losses that stand as {names} below `train`: this run trains "
            "without the other. The host's own models build `perceptual_opt` alone."
        )
    elif not built:
        cure = "Choose a model_type that has a perceptual loss."
        if "perceptual_opt" not in names:
            cure = "The host's own models look for `perceptual_opt`: rename the block, or choose a model that reads it."
        for name, loss_type in asked:
            warn(f"{who} has not built the {loss_type} of `train: {name}`: this run trains without it. {cure}")


def _rehearse(criterion: CLPLoss, sr: Tensor, target: Tensor, model: Any, warn: Callable[[str], None]) -> None:
    try:
        criterion.rehearse(sr, target)
    except (TypeError, ValueError) as error:
        if type(model).optimize_parameters.__module__.partition(".")[0] in _HOSTS:
            raise
        warn(
            f"{type(model).__name__} has not called its CLPLoss yet. Tried with the model's `output`, `gt` and `lq`, "
            f"it fails: {error} If optimize_parameters will call it with other images, all is well."
        )


def _options_asking_for(loss_types: Sequence[str], model: Any) -> list[tuple[str, str]]:
    sections: Mapping[str, Any] = model.opt.get("train") or {}
    blocks = {name: block["type"] for name, block in sections.items() if isinstance(block, Mapping) and "type" in block}
    return [(name, loss_type) for name, loss_type in blocks.items() if loss_type in loss_types]
