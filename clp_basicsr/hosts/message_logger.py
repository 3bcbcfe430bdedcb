"""The layers in TensorBoard and the warnings in the log, whenever the host logs and never in between.

Served are hosts whose ``utils/logger.py`` is BasicSR's or descends from it: BasicSR and neosr.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from clp_basicsr.advice import advice
from clp_basicsr.diagnostics import Report, scalars
from clp_basicsr.hosts.holders import held_losses, remembered
from clp_basicsr.hosts.once import first_time
from clp_basicsr.loss import CLPLoss

_said: weakref.WeakKeyDictionary[CLPLoss, set[str]] = weakref.WeakKeyDictionary()


def attach(logger_module: ModuleType) -> None:
    """Let MessageLogger send the diagnostics along; once is enough."""
    if not first_time(logger_module.MessageLogger, "__call__"):
        return
    original = logger_module.MessageLogger.__call__

    @functools.wraps(original)
    def call(self: Any, log_vars: dict[str, Any]) -> Any:
        iteration, models = int(log_vars["iter"]), _logged(log_vars)
        result = original(self, log_vars)
        if logger_module.get_dist_info()[0] == 0:
            report(self, models, iteration)
        return result

    logger_module.MessageLogger.__call__ = call


def _logged(log_vars: Mapping[str, Any]) -> list[Any]:
    """Return the models whose numbers stand in the line that is logged; all models where that cannot be told."""
    models = remembered()

    def stands_there(model: Any) -> bool:
        numbers: Mapping[str, Any] = getattr(model, "log_dict", None) or {}
        return bool(numbers) and all(log_vars.get(name) is value for name, value in numbers.items())

    return [model for model in models if stands_there(model)] or models


def report(message_logger: Any, models: Iterable[Any], iteration: int) -> None:
    """Send what the models' losses measured last to TensorBoard, and say once what is wrong."""
    for model in models:
        losses = held_losses(model)
        reports = {name: seen.read() for name, each in losses.items() if (seen := each.diagnostics) is not None}
        _send(message_logger, reports, iteration)
        weight = _small_on_purpose(model)
        for name, read in reports.items():
            each = losses[name]
            found = advice(read, float(each.weight), weight, range_norm=each.range_norm)
            _warn_once(message_logger, each, found)


def _send(message_logger: Any, reports: Mapping[str, Report], iteration: int) -> None:
    if not message_logger.use_tb_logger or "debug" in message_logger.exp_name:
        return
    for tag, value in scalars(reports).items():
        message_logger.tb_logger.add_scalar(tag, value, iteration)


def _small_on_purpose(model: Any) -> float:
    """Return the weight of a pixel loss below 1 beside a GAN loss: ESRGAN's is 0.01, the perceptual loss is to lead."""
    if getattr(model, "cri_gan", None) is None:
        return 1.0
    return min(1.0, float(getattr(getattr(model, "cri_pix", None), "loss_weight", 1.0)))


def _warn_once(message_logger: Any, criterion: CLPLoss, warnings: Iterable[tuple[str, str]]) -> None:
    said = _said.setdefault(criterion, set())
    if any(source.resembles_sr for source in criterion.sources):
        said.add("negative")
    for kind, text in warnings:
        if kind not in said:
            said.add(kind)
            message_logger.logger.warning(f"CLPLoss: {text}")
