"""Numbers for validation: how far SR is from GT, for images as tensors in [0, 1].

The same under BasicSR's names for a YAML file: `clp_basicsr.hosts.basicsr_metrics`. Networks are
built once per settings and kept; nothing here records a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clp_basicsr import arguments, pyiqa_package
from clp_basicsr.devices import chosen_device
from clp_basicsr.distances import DISTANCES
from clp_basicsr.extractors import FeatureExtractor, build_extractor
from clp_basicsr.images import as_rgb, check_images
from clp_basicsr.loss import CLPLoss
from clp_basicsr.negatives import upsampled_lr

_KEPT = 8
"""Networks that are kept in memory at a time."""
_built: dict[str, Any] = {}


@torch.no_grad()
def clp_pull(
    sr: Tensor,
    target: Tensor,
    lr: Tensor,
    *,
    model: str = "dinov2",
    weights: str | Path | None = None,
    layer_weights: Mapping[str, float] | None = None,
    distance: str = "l2",
    use_input_norm: bool = True,
    precision: str = "float32",
    crop_border: int = 0,
    device: str | None = None,
) -> float:
    """Return the loss's distance SR-GT in units of the gap GT-LR; lower is better.

    The number that training logs as ``clp_pull``: 0 at GT, about 1 at the upsampled LR (a little less, since the
    gap is floored). Mean over images and channels, weighted mean over layers.

    Args:
        sr: super-resolved images ``(N, 3, H, W)`` or ``(N, 1, H, W)``, values in [0, 1].
        target: ground truth of the same shape.
        lr: low-quality images ``(N, 3, h, w)``, ``h <= H``, ``w <= W``.
        model: as in `CLPLoss`.
        weights: as in `CLPLoss`.
        layer_weights: as in `CLPLoss`.
        distance: "l2", "l1" or "cosine", as in `CLPLoss`.
        use_input_norm: as in `CLPLoss`.
        precision: as in `CLPLoss`.
        crop_border: pixels cut from each edge of SR, GT and the upsampled LR.
        device: where the network runs; None for the GPU if there is one, else the CPU.

    Raises:
        TypeError: for an option or an image of the wrong type.
        ValueError: for an option that is not allowed, or images whose sizes do not fit.
        ImportError: if the network's package is not installed.
        FileNotFoundError: if the weights cannot be had.
    """
    check_images(sr, target, lr)
    border, place = _check_crop(crop_border, sr), chosen_device(device)
    sr, target, lr = (_placed(each, place) for each in (sr, target, lr))
    loss = _once(
        _loss,
        model,
        place,
        weights=weights,
        layer_weights=layer_weights,
        distance=distance,
        use_input_norm=use_input_norm,
        precision=precision,
    )
    # Cropped at the size of GT, or LR's border would have to be cut in fractions of a pixel.
    loss.evaluate(*(_cropped(each, border) for each in (sr, target, upsampled_lr(lr, target))))
    summary = loss.take_summary()
    assert summary is not None
    return float(summary.pull)


@torch.no_grad()
def feature_distance(
    sr: Tensor,
    target: Tensor,
    *,
    model: str = "efficientnet_lite2",
    weights: str | Path | None = None,
    layer_weights: Mapping[str, float] | None = None,
    use_input_norm: bool = True,
    precision: str = "float32",
    crop_border: int = 0,
    device: str | None = None,
) -> float:
    """Return the squared distance of unit feature vectors; lower is better, 0 at GT, at most 4.

    LPIPS (Zhang et al., CVPR 2018) without its learned linear weights, on any network: at each
    position ``|f/|f| - g/|g||^2`` over channels, then the mean over positions and images and the
    weighted mean over layers. A network that the loss was not trained with makes an independent judge.

    Args:
        sr: super-resolved images ``(N, 3, H, W)`` or ``(N, 1, H, W)``, values in [0, 1].
        target: ground truth of the same shape.
        model: as in `CLPLoss`.
        weights: as in `CLPLoss`.
        layer_weights: ``{layer: weight}``; None for the network's defaults.
        use_input_norm: as in `CLPLoss`.
        precision: as in `CLPLoss`.
        crop_border: pixels cut from each edge of both images.
        device: where the network runs; None for the GPU if there is one, else the CPU.

    Raises:
        TypeError: for an option or an image of the wrong type.
        ValueError: for an option that is not allowed, or images whose sizes do not fit.
        ImportError: if the network's package is not installed.
        FileNotFoundError: if the weights cannot be had.
    """
    check_images(sr, target, target)
    border, place = _check_crop(crop_border, sr), chosen_device(device)
    given = arguments.layer_weights(layer_weights)
    layers = None if given is None else list(given)
    network = _once(_extractor, model, layers, weights, place, use_input_norm=use_input_norm, precision=precision)
    features, references = (network(_prepared(each, border, place)) for each in (sr, target))
    chosen = given or network.default_layer_weights
    # "cosine" is half the squared distance of unit vectors, per position.
    values = {layer: 2 * DISTANCES["cosine"].between(features[layer], references[layer]).mean() for layer in features}
    return sum(chosen[layer] * float(value) for layer, value in values.items()) / sum(chosen[layer] for layer in values)


@torch.no_grad()
def pyiqa_score(
    sr: Tensor,
    target: Tensor | None = None,
    *,
    metric: str,
    crop_border: int = 0,
    device: str | None = None,
    **options: Any,
) -> float:
    """Return a metric of the package pyiqa ("lpips", "dists", "musiq", …), the mean over images.

    Args:
        sr: super-resolved images ``(N, 3, H, W)`` or ``(N, 1, H, W)``, values in [0, 1].
        target: ground truth of the same shape; None is possible for metrics without reference.
        metric: a name out of ``pyiqa.list_models()``.
        crop_border: pixels cut from each edge of both images.
        device: where the network runs; None for the GPU if there is one, else the CPU.
        **options: go on to ``pyiqa.create_metric``.

    Raises:
        TypeError: for an image of the wrong type.
        ValueError: for a metric or an option that pyiqa does not know, images whose sizes do not
            fit, or a missing ``target``.
        ImportError: if pyiqa is not installed.
        FileNotFoundError: if the metric's weights cannot be had.
    """
    check_images(sr, sr if target is None else target, sr)
    border, place = _check_crop(crop_border, sr), chosen_device(device)
    with_reference = pyiqa_package.compares_with_gt(metric)
    if with_reference and target is None:
        raise ValueError(f"Argument `target` must be given: pyiqa's '{metric}' compares with GT.")
    built = _once(pyiqa_package.build, metric, place, **options)
    given = (sr, target) if target is not None and with_reference else (sr,)
    score = built(*(_prepared(each, border, place) for each in given))
    return float(score.float().mean())


def _once(build: Callable[..., Any], *settings: object, **options: object) -> Any:
    """Return ``build(*settings, **options)``, built at the first call with these settings."""
    key = repr((build.__name__, settings, sorted(options.items())))
    if key not in _built:
        if len(_built) >= _KEPT:
            _built.pop(next(iter(_built)))
        _built[key] = build(*settings, **options)
    return _built[key]


def _loss(model: str, device: torch.device, **keywords: Any) -> CLPLoss:
    return CLPLoss(model, diagnostics=False, **keywords).to(device)


def _extractor(
    model: str, layers: list[str] | None, weights: str | Path | None, device: torch.device, **options: Any
) -> FeatureExtractor:
    return build_extractor(model, layers, weights, **options).to(device)


def _prepared(images: Tensor, border: int, device: torch.device) -> Tensor:
    return as_rgb(_cropped(_placed(images, device), border))


def _placed(images: Tensor, device: torch.device) -> Tensor:
    return images.detach().to(device, torch.float32)


def _check_crop(given: object, images: Tensor) -> int:
    border = arguments.count("crop_border", given, zero_allowed=True)
    if 2 * border >= min(images.shape[-2:]):
        raise ValueError(
            f"Argument `crop_border` must leave something of images of {tuple(images.shape[-2:])} pixels, "
            f"but got {border}."
        )
    return border


def _cropped(images: Tensor, border: int) -> Tensor:
    height, width = images.shape[-2:]
    return images[..., border : height - border, border : width - border]
