"""``val: clp_panels: N``: what the loss sees of the first N images of each validation, in TensorBoard.

BasicSR tells nobody outside which image it is validating. While a validation runs, the model's own
`get_current_visuals`, which it asks for every image, draws the panel in passing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import Tensor

from clp_basicsr import arguments
from clp_basicsr.hosts.clips import without_mirror
from clp_basicsr.hosts.construction import before_construction
from clp_basicsr.hosts.holders import held_losses
from clp_basicsr.hosts.once import first_time
from clp_basicsr.hosts.overrides import wrap_overrides
from clp_basicsr.inspection import inspect
from clp_basicsr.messages import reason
from clp_basicsr.pictures.canvas import check_matplotlib, pixels
from clp_basicsr.pictures.sheet import draw_sheet

Warn = Callable[[str], None]
_ORDER = ("dataloader", "current_iter", "tb_logger", "save_img")


def attach(base_model: Any, warn: Warn) -> None:
    """Let models draw panels where their options ask for them; once is enough.

    Args:
        base_model: BasicSR's ``BaseModel``.
        warn: says in the run's log what keeps panels from being drawn.
    """
    if first_time(base_model, "panels"):
        before_construction(base_model, _check)
    wrap_overrides(base_model, "validation", functools.partial(_validate, warn=warn))


def _check(_: type, opt: Mapping[str, Any]) -> None:
    if _wanted(opt):
        check_matplotlib()


def _validate(model: Any, validation: Callable[..., Any], *args: Any, warn: Warn, **kwargs: Any) -> Any:
    count = _wanted(model.opt)
    if not count or model.opt.get("rank", 0) != 0 or _is_drawing(model):
        return validation(*args, **kwargs)
    given = _given(validation, args, kwargs)
    if not _possible(model, given, warn):
        return validation(*args, **kwargs)
    folder = f"clp_panels/{given['dataloader'].dataset.opt['name']}"
    shown: list[int] = []

    def send(visuals: Mapping[str, Tensor]) -> None:
        place = len(shown)
        shown.append(place)
        if place >= count:
            return
        try:
            _send(model, given["tb_logger"], f"{folder}/{place:03d}", visuals, given["current_iter"])
        except Exception as error:  # a training of days must not end for the want of a picture
            _say_once(model, warn, f"`val: clp_panels` could not draw image {place} of '{folder}': {reason(error)}")

    plain = model.get_current_visuals
    model.get_current_visuals = _sending(plain, send)
    try:
        result = validation(*args, **kwargs)
    finally:
        del model.get_current_visuals
    if not shown:
        what = f"the validation of {type(model).__name__} asks for no image (get_current_visuals)"
        _say_once(model, warn, f"`val: clp_panels` draws nothing: {what}")
    return result


def _given(validation: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what a validation was called with, by name; in BasicSR's order where it takes whatever comes."""
    parameters = signature(validation)
    try:
        bound = parameters.bind(*args, **kwargs)
    except TypeError:  # its own to raise
        return {}
    bound.apply_defaults()
    takes_anything = any(each.kind is each.VAR_POSITIONAL for each in parameters.parameters.values())
    return {**(dict(zip(_ORDER, args)) if takes_anything else {}), **kwargs, **bound.arguments}


def _is_drawing(model: Any) -> bool:
    """Say whether this validation was called by one of a class that inherits from this one's."""
    return "get_current_visuals" in vars(model)


def _sending(plain: Callable[[], Mapping[str, Tensor]], send: Callable[[Mapping[str, Tensor]], None]) -> Any:
    def get_current_visuals() -> Mapping[str, Tensor]:
        visuals = plain()
        send(visuals)
        return visuals

    return get_current_visuals


def _send(model: Any, tb_logger: Any, tag: str, visuals: Mapping[str, Tensor], iteration: int) -> None:
    if "gt" not in visuals:
        return  # a data set without GT has no distances to draw
    losses, lr = held_losses(model), without_mirror(model, visuals["lq"])
    for name, loss in losses.items():
        images = (each.to(loss.extractor.mean.device) for each in (visuals["result"], visuals["gt"], lr))
        title = f"{tag.removeprefix('clp_panels/')}, iteration {iteration}"
        sheet = pixels(draw_sheet(inspect(loss, *images), title))
        tb_logger.add_image(f"{tag}/{name}" if len(losses) > 1 else tag, sheet, iteration, dataformats="HWC")


def _wanted(opt: Mapping[str, Any]) -> int:
    validation = opt.get("val") or {}
    return arguments.count("val: clp_panels", validation.get("clp_panels", 0), zero_allowed=True)


def _possible(model: Any, given: Mapping[str, Any], warn: Warn) -> bool:
    """Return whether panels can be drawn, and say once what is missing."""
    missing, tb_logger = None, given.get("tb_logger")
    if tb_logger is None and not getattr(model, "is_train", True):
        missing = "they are for trainings. Of single images: clp-basicsr inspect"
    elif tb_logger is None:
        missing = "there is no TensorBoard log: set `logger: use_tb_logger: true`, and a name without 'debug'"
    elif not held_losses(model):
        missing = f"{type(model).__name__} holds no CLPLoss"
    elif not {"dataloader", "current_iter"} <= given.keys():
        missing = f"the validation of {type(model).__name__} takes no `dataloader` and `current_iter`"
    if missing is not None:
        _say_once(model, warn, f"`val: clp_panels` draws nothing: {missing}")
    return missing is None


def _say_once(model: Any, warn: Warn, what: str) -> None:
    if not getattr(model, "_clp_panels_missed", False):
        model._clp_panels_missed = True
        warn(f"{what.rstrip('.')}.")
