"""``val: metrics``: what cannot be computed is said when the model is made, not hours later in a validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from clp_basicsr.hosts.basicsr_metrics import METRICS, Image, calculate_clp_pull
from clp_basicsr.hosts.construction import before_construction
from clp_basicsr.hosts.once import first_time
from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.options.types import is_registered
from clp_basicsr.messages import not_a_choice, reason, shown

_SIZE = 256
_OURS = {metric.__name__: metric for metric in METRICS}


def attach(base_model: Any, warn: Callable[[str], None]) -> None:
    """Let models try the metrics of their options as they are made; once is enough.

    Args:
        base_model: BasicSR's ``BaseModel``.
        warn: says in the run's log what went wrong in a way that real images may not.
    """

    def check(model: type, opt: Mapping[str, Any]) -> None:
        if opt.get("rank", 0) == 0 and any(not name.startswith("train") for name in opt.get("datasets") or ()):
            rehearse((opt.get("val") or {}).get("metrics") or {}, warn, model if _validates_itself(model) else None)

    if first_time(base_model, "metrics"):
        before_construction(base_model, check)


def _validates_itself(model: type) -> bool:
    validation = getattr(model, "nondist_validation", None)
    return validation is not None and not str(validation.__module__).startswith("basicsr.")


def rehearse(metrics: Mapping[str, Any], warn: Callable[[str], None], itself: type | None = None) -> None:
    """Compute `METRICS` once, of noise; the networks that this builds are those of the validation.

    Args:
        metrics: the block ``val: metrics:``.
        warn: as in `attach`.
        itself: the model's class if it has a validation of its own, which may have metrics of its own.

    Raises:
        OptionFileError: for a metric or an option that is not known or not allowed.
        ImportError: if a metric's package is not installed.
        FileNotFoundError: if a network's weights cannot be had.
    """
    from basicsr.utils.registry import METRIC_REGISTRY

    known = list(METRIC_REGISTRY.keys())
    for name, block in metrics.items():
        given = dict(block) if isinstance(block, Mapping) else {}
        kind = given.pop("type", None)
        if not is_registered(kind, known):
            unknown = not_a_choice(f"val: metrics: {name}: type", kind, known)
            if itself is None:
                raise OptionFileError(unknown)
            warn(f"{itself.__name__}, which has a validation of its own, may know what BasicSR does not: {unknown}")
        elif kind in _OURS:
            _try(name, _OURS[kind], given, warn)


def _try(name: str, metric: Callable[..., float], given: Mapping[str, Any], warn: Callable[[str], None]) -> None:
    noise = _noise(given.get("crop_border", 0))
    partner = {"lq": noise} if metric is calculate_clp_pull else {}
    try:
        with torch.random.fork_rng(devices=[]):  # networks are built on the CPU; the training begins as without them
            metric(noise, noise, **partner, **given)
    except (TypeError, ValueError) as error:
        raise OptionFileError(
            f"Option `val: metrics: {name}`, {shown(dict(given))}, cannot be used: {error}"
        ) from error
    except (ImportError, FileNotFoundError):
        raise
    except Exception as error:  # pyiqa's are of many makers, who may not have thought of noise
        warn(f"`val: metrics: {name}` fails with an image of noise; see whether it does with yours: {reason(error)}")


def _noise(border: object) -> Image:
    size = _SIZE + 2 * (border if isinstance(border, int) and 0 <= border < _SIZE else 0)
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
