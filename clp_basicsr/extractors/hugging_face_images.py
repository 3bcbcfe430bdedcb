"""How the images of a Hugging Face checkpoint are normalised: its preprocessor_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clp_basicsr.extractors.base import IMAGENET_MEAN, IMAGENET_STD
from clp_basicsr.extractors.dino_models import DINO_MODELS
from clp_basicsr.extractors.hugging_face_checkpoint import PREPROCESSOR, Checkpoint
from clp_basicsr.messages import reason, shown, warn

Statistics = tuple[Sequence[float], Sequence[float]]
_IMAGENET: Statistics = (IMAGENET_MEAN, IMAGENET_STD)
_AS_THEY_ARE: Statistics = ([0.0] * 3, [1.0] * 3)


def statistics(checkpoint: Checkpoint, *, imagenet_if_absent: bool) -> Statistics:
    """Return mean and standard deviation, of images in [0, 1], that a checkpoint was trained with.

    Args:
        checkpoint: whose.
        imagenet_if_absent: whether a folder without the file has ImageNet's without a warning, as the DINOs have.

    Raises:
        ValueError: if the file does not hold what it should.
    """
    if checkpoint.is_random or (checkpoint.name in DINO_MODELS and not checkpoint.is_folder):
        return _IMAGENET
    from transformers.utils import cached_file

    try:
        file = checkpoint.fetched(cached_file, filename=PREPROCESSOR)
        read = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        if not (checkpoint.is_folder and imagenet_if_absent):
            warn(
                f"The {PREPROCESSOR} of '{checkpoint.source}', which says how its images are normalised, could not be "
                f"had: {reason(error)} ImageNet's mean and standard deviation are used."
            )
        return _IMAGENET
    except ValueError as error:
        raise _not_an_object(checkpoint.source, str(error)) from error
    if not isinstance(read, Mapping):
        raise _not_an_object(checkpoint.source, shown(read))
    return _statistics(read, checkpoint.source)


def _not_an_object(source: str, problem: str) -> ValueError:
    return ValueError(f"'{PREPROCESSOR}' in '{source}' must be a JSON object, but it is not: {problem}")


def _statistics(read: Mapping[str, Any], source: str) -> Statistics:
    mean, std = _AS_THEY_ARE if read.get("do_normalize") is False else _normalisation(read, source)
    factor = 1 if read.get("do_rescale") is False else _rescale_factor(read, source)
    # What they are subtracted from and divide: 8-bit values times the factor, where ours are in [0, 1].
    return [each / (255 * factor) for each in mean], [each / (255 * factor) for each in std]


def _normalisation(read: Mapping[str, Any], source: str) -> Statistics:
    return _three_numbers(read, "image_mean", source), _three_numbers(read, "image_std", source)


def _three_numbers(read: Mapping[str, Any], key: str, source: str) -> Sequence[float]:
    usual = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}[key]
    given = usual if read.get(key) is None else read[key]
    are_three = (
        isinstance(given, list | tuple) and len(given) == 3 and all(isinstance(each, int | float) for each in given)
    )
    if not are_three or (key == "image_std" and not all(given)):
        raise ValueError(
            f"`{key}` of {PREPROCESSOR} in '{source}' must be three numbers, one for each channel, but got "
            f"{shown(given)}."
        )
    return given


def _rescale_factor(read: Mapping[str, Any], source: str) -> float:
    factor = 1 / 255 if read.get("rescale_factor") is None else read["rescale_factor"]
    if not isinstance(factor, int | float) or not factor:
        raise ValueError(
            f"`rescale_factor` of {PREPROCESSOR} in '{source}' must be a number other than 0, but got {shown(factor)}."
        )
    return factor
