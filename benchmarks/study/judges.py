"""Judges: what SR is measured with. None of them is the network that the losses train with, but `own`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.study.detail import detail_and_artefact, sharpness
from clp_basicsr.metrics import feature_distance
from clp_basicsr.pictures.files import as_bytes

_VGG16 = "vgg16.safetensors"


class Pair(NamedTuple):
    """SR and GT ``(1, 3, H, W)`` in [0, 1], as 8 bit hold them; and what else a judge may want to know."""

    sr: Tensor
    target: Tensor
    scale: int
    features: dict[str, Any]
    study: Path
    """The study's folder, in which `benchmarks.published_vgg16` has left its file for the judge of that name."""


class Judge(NamedTuple):
    """A measurement, and which way is better: 1 up, -1 down, 0 neither."""

    measure: Callable[[Pair], float]
    better: int
    title: str


def _basicsr(name: str) -> Callable[[Pair], float]:
    def measure(pair: Pair) -> float:
        import basicsr.metrics

        images = (as_bytes(pair.sr), as_bytes(pair.target))
        return float(getattr(basicsr.metrics, f"calculate_{name}")(*images, crop_border=pair.scale))

    return measure


def _niqe(pair: Pair) -> float:
    from basicsr.metrics import calculate_niqe

    bgr = as_bytes(pair.sr)[..., ::-1]
    return float(calculate_niqe(bgr, crop_border=pair.scale))


def _piq(name: str) -> Callable[[Pair], float]:
    def measure(pair: Pair) -> float:
        import piq

        return float(getattr(piq, name)(pair.sr, pair.target, data_range=1.0))

    return measure


def _features(model: str, file: str | None = None) -> Callable[[Pair], float]:
    def measure(pair: Pair) -> float:
        weights = None if file is None else pair.study / file
        return feature_distance(pair.sr, pair.target, model=model, weights=weights, crop_border=pair.scale)

    return measure


def _own(pair: Pair) -> float:
    return feature_distance(pair.sr, pair.target, crop_border=pair.scale, **pair.features)


JUDGES = {
    "lite2": Judge(_features("efficientnet_lite2"), -1, "Lite2"),
    "lite1": Judge(_features("efficientnet_lite1"), -1, "Lite1"),
    "vgg16": Judge(_features("torchvision:vgg16", _VGG16), -1, "VGG16"),
    "psnr": Judge(_basicsr("psnr"), 1, "PSNR"),
    "ssim": Judge(_basicsr("ssim"), 1, "SSIM"),
    "fsim": Judge(_piq("fsim"), 1, "FSIM"),
    "gmsd": Judge(_piq("gmsd"), -1, "GMSD"),
    "haarpsi": Judge(_piq("haarpsi"), 1, "HaarPSI"),
    "niqe": Judge(_niqe, -1, "NIQE"),
    "sharpness": Judge(lambda pair: sharpness(pair.sr, pair.target), 0, "sharpness"),
    "detail": Judge(lambda pair: detail_and_artefact(pair.sr, pair.target, pair.scale)[0], 1, "detail"),
    "artefact": Judge(lambda pair: detail_and_artefact(pair.sr, pair.target, pair.scale)[1], -1, "artefact"),
    "own": Judge(_own, -1, "own features"),
}


def check_files(study: Path, names: list[str]) -> None:
    """See to it that judges will find what they read in the study's folder.

    Raises:
        FileNotFoundError: if a file is not there.
    """
    if "vgg16" in names and not (study / _VGG16).is_file():
        raise FileNotFoundError(
            f"The judge `vgg16` must have its weights at '{study / _VGG16}', but there is nothing. Fetch them with "
            f"`python -m benchmarks.published_vgg16 -o {study / _VGG16}`, or leave it out of `judges`."
        )


def judged(pair: Pair, names: list[str]) -> dict[str, float]:
    """Return a photo's numbers by judge; SR is first rounded to 8 bit, as a saved image is."""
    with torch.no_grad():
        rounded = torch.from_numpy(as_bytes(pair.sr)).permute(2, 0, 1)[None].float() / 255
        seen = pair._replace(sr=rounded.to(pair.target.device))
        return {name: JUDGES[name].measure(seen) for name in names}
