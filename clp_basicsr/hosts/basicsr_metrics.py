"""The validation metrics of `clp_basicsr.metrics` for BasicSR's ``val: metrics:``.

BasicSR hands a metric SR and GT as BGR arrays and no LR. The LR is kept, with the SR it belongs to,
where each validation asks its model for both: `SRModel.get_current_visuals`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clp_basicsr import metrics, pyiqa_package
from clp_basicsr.arguments import choice
from clp_basicsr.hosts.clips import without_mirror
from clp_basicsr.hosts.once import first_time
from clp_basicsr.hosts.registering import register_own
from clp_basicsr.messages import did_you_mean

Image = NDArray[Any]

_shown: tuple[Tensor, Tensor] | None = None
"""LR and SR of the image, or of the clip, that is being validated."""
_warned: set[str] = set()


def calculate_clp_pull(
    img: Image,
    img2: Image | None = None,
    crop_border: int = 0,
    input_order: str = "HWC",
    lq: Image | None = None,
    better: str | None = None,
    **options: Any,
) -> float:
    """Return `clp_basicsr.metrics.clp_pull`; lower is better, so write ``better: lower``.

    Args:
        img: SR, BGR, values in [0, 255].
        img2: GT, as ``img``.
        crop_border: pixels cut from each edge.
        input_order: "HWC" or "CHW".
        lq: the LR image, as ``img``; None in a validation of BasicSR, where it is the partner of ``img``.
        better: read by BasicSR.
        **options: the other keywords of `clp_basicsr.metrics.clp_pull`.

    Raises:
        TypeError: for an unknown option.
        ValueError: without GT, without LR, or as `clp_basicsr.metrics.clp_pull`.
        ImportError: as `clp_basicsr.metrics.clp_pull`.
        FileNotFoundError: as `clp_basicsr.metrics.clp_pull`.
    """
    _check_options("calculate_clp_pull", options, metrics.clp_pull)
    _check_direction("calculate_clp_pull", better, lower=True)
    sr, target = _tensor(img, input_order), _ground_truth("calculate_clp_pull", img2, input_order)
    lr = _partner(sr) if lq is None else _tensor(lq, input_order)
    return metrics.clp_pull(sr, target, lr, crop_border=crop_border, **options)


def calculate_feature_distance(
    img: Image,
    img2: Image | None = None,
    crop_border: int = 0,
    input_order: str = "HWC",
    better: str | None = None,
    **options: Any,
) -> float:
    """Return `clp_basicsr.metrics.feature_distance`; lower is better, so write ``better: lower``.

    Args:
        img: SR, BGR, values in [0, 255].
        img2: GT, as ``img``.
        crop_border: pixels cut from each edge.
        input_order: "HWC" or "CHW".
        better: read by BasicSR.
        **options: the other keywords of `clp_basicsr.metrics.feature_distance`.

    Raises:
        TypeError: for an unknown option.
        ValueError: without GT, or as `clp_basicsr.metrics.feature_distance`.
        ImportError: as `clp_basicsr.metrics.feature_distance`.
        FileNotFoundError: as `clp_basicsr.metrics.feature_distance`.
    """
    _check_options("calculate_feature_distance", options, metrics.feature_distance)
    _check_direction("calculate_feature_distance", better, lower=True)
    target = _ground_truth("calculate_feature_distance", img2, input_order)
    return metrics.feature_distance(_tensor(img, input_order), target, crop_border=crop_border, **options)


def calculate_pyiqa(
    img: Image,
    img2: Image | None = None,
    crop_border: int = 0,
    input_order: str = "HWC",
    better: str | None = None,
    *,
    metric: str,
    **options: Any,
) -> float:
    """Return `clp_basicsr.metrics.pyiqa_score`; write ``better: lower`` for LPIPS and DISTS.

    Args:
        img: SR, BGR, values in [0, 255].
        img2: GT, as ``img``; not needed by metrics without reference.
        crop_border: pixels cut from each edge.
        input_order: "HWC" or "CHW".
        better: read by BasicSR.
        metric: a name out of ``pyiqa.list_models()``.
        **options: ``device``, and what ``pyiqa.create_metric`` takes.

    Raises:
        ValueError: as `clp_basicsr.metrics.pyiqa_score`.
        ImportError: if pyiqa is not installed.
        FileNotFoundError: if the metric's weights cannot be had.
    """
    _check_direction(f"calculate_pyiqa ({metric})", better, lower=pyiqa_package.lower_is_better(metric))
    target = None if img2 is None else _tensor(img2, input_order)
    return metrics.pyiqa_score(_tensor(img, input_order), target, metric=metric, crop_border=crop_border, **options)


METRICS = (calculate_clp_pull, calculate_feature_distance, calculate_pyiqa)


def register(metrics_module: ModuleType) -> None:
    """Register `METRICS`, all or none; again, or where there is no registry, changes nothing.

    Raises:
        ValueError: if a name is taken by another function.
    """
    registry = getattr(metrics_module, "METRIC_REGISTRY", None)
    if registry is None:
        return  # a fork of BasicSR from before its registries
    register_own(registry, "BasicSR's METRIC_REGISTRY", METRICS)


def keep_shown(sr_model_module: ModuleType) -> None:
    """Keep what SRModel, and what inherits from it, shows a validation; once is enough."""
    if not first_time(sr_model_module.SRModel, "get_current_visuals"):
        return
    original = sr_model_module.SRModel.get_current_visuals

    @functools.wraps(original)
    def get_current_visuals(self: Any) -> Any:
        global _shown
        visuals = original(self)
        _shown = without_mirror(self, visuals["lq"]), visuals["result"]
        return visuals

    sr_model_module.SRModel.get_current_visuals = get_current_visuals


def _partner(sr: Tensor) -> Tensor:
    """Return the LR image that ``sr`` was made from: a left-over of another image must not pass for it."""
    for shown_lr, shown_sr in _shown_frames():
        if torch.equal(_eight_bit(shown_sr), _eight_bit(sr)):
            return shown_lr
    raise ValueError(
        "calculate_clp_pull needs the LR image, but got none, and SR is not the image that a model of BasicSR is "
        "validating now. Pass it: lq=image. In a validation it comes from `SRModel.get_current_visuals`, which the "
        "model must inherit or call, and `import clp_basicsr` must stand above the imports of BasicSR."
    )


def _shown_frames() -> Iterator[tuple[Tensor, Tensor]]:
    """Yield LR and SR ``(1, C, H, W)`` of the image, or of each frame of the clip; LR's centre frame for one SR."""
    if _shown is None:
        return
    lr, sr = _shown
    if lr.dim() == 5 and sr.dim() == 4:
        yield lr[:1, lr.shape[1] // 2], sr[:1]
    elif lr.dim() == 5:
        yield from zip(lr[0].unsqueeze(1), sr[0].unsqueeze(1))
    else:
        yield lr[:1], sr[:1]


def _eight_bit(images: Tensor) -> Tensor:
    """Round as BasicSR's tensor2img, which makes 0 of NaN."""
    return (images.detach().cpu().float().clamp(0, 1).nan_to_num(0) * 255).round()


def _ground_truth(name: str, img2: Image | None, input_order: str) -> Tensor:
    if img2 is None:
        raise ValueError(f"{name} compares with GT, but got none. Give the data set of the validation a `dataroot_gt`.")
    return _tensor(img2, input_order)


def _tensor(image: Image, input_order: str) -> Tensor:
    """Return BGR or grey ``(H, W, C)`` or ``(C, H, W)`` in [0, 255] as RGB ``(1, C, H, W)`` in [0, 1]."""
    order = choice("input_order", input_order, ["HWC", "CHW"])
    pixels = np.asarray(image, dtype=np.float32)
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif order == "HWC":
        pixels = np.moveaxis(pixels, -1, 0)
    return torch.from_numpy(np.ascontiguousarray(pixels[::-1]))[None] / 255


def _check_options(name: str, options: Iterable[str], function: Callable[..., float]) -> None:
    parameters = inspect.signature(function).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise TypeError(f"{name} has no option `{option}`; it must be one of {known}.{did_you_mean(option, known)}")


def _check_direction(name: str, better: str | None, *, lower: bool) -> None:
    """Say once that BasicSR keeps the worst result as its best: it takes every metric for "higher is better"."""
    read_as_lower = better not in (None, "higher")
    if _shown is None or read_as_lower == lower or name in _warned:
        return
    from basicsr.utils import get_root_logger

    _warned.add(name)
    right, wrong = ("lower", "highest") if lower else ("higher", "lowest")
    get_root_logger().warning(
        f"{name} is better when it is {right}, but BasicSR will call the {wrong} `Best`: add `better: {right}` to its "
        "options under `val: metrics:`."
    )
