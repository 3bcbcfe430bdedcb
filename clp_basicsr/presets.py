"""Published losses as keywords of `CLPLoss`: layers, weights, normalisation, reduction, negatives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from clp_basicsr import arguments
from clp_basicsr.criteria import OPTIONS
from clp_basicsr.extractors import canonical_name

_Initialise = TypeVar("_Initialise", bound=Callable[..., None])

# Wu et al., CVPR 2021: models/CR.py of AECR-Net. VGG19 on images that are not normalised.
_AECR: dict[str, Any] = {
    "model": "vgg",
    "layer_weights": {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0},
    "criterion": "batch_ratio",
    "distance": "l1",
    "use_input_norm": False,
}

PRESETS: dict[str, dict[str, Any]] = {
    "aecr": _AECR,
    # Wang et al., IJCAI 2021: PyTorch version/loss/contrast_loss.py of CSD; images in [0, 255], LR
    # images of the batch as negatives, their distances summed.
    "csd": {
        **_AECR,
        "over_negatives": "sum",
        "input_scale": 255.0,
        "negatives": ["lr", {"type": "batch", "of": "lr", "count": 7}],
    },
    # Zheng et al., CVPR 2023: C2R.py of C2PNet. Its other negatives are files of one's own, with the weights of
    # its curriculum: negatives=["lr", "files"], over_negatives=[6, 1.25, 0.75, …].
    "c2pnet": _AECR,
    # Kong et al., CVPRW 2022 (RLFN): features of two random convolutions with a tanh between; no code was released.
    "rlfn": {
        "model": "random_convs",
        "layer_weights": {"conv1": 1.0, "conv2": 1.0},
        "criterion": "batch_ratio",
        "distance": "l1",
        "over_negatives": "sum",
        "use_input_norm": False,
    },
    # Wu et al., TNNLS 2023: VGGInfoNCE of src/loss/cl.py of PCL-SR, which holds AECR-Net's weights and does not use
    # them; images in [0, 255]. The network that it trains with in the paper is a discriminator.
    "pcl": {
        **_AECR,
        "layer_weights": dict.fromkeys(_AECR["layer_weights"], 1.0),
        "input_scale": 255.0,
        "align_corners": True,
        "criterion": "infonce",
        "distance": "cosine",
        "temperature": 1.0,
        "capped": False,
        "negatives": ["lr", {"type": "blur", "count": 3, "sigma": [0.1, 2.0]}],
    },
}


def with_presets(initialise: _Initialise) -> _Initialise:
    """Let ``__init__`` fill keywords that are not given from the preset that is."""

    @functools.wraps(initialise)
    def with_preset(self: object, *positional: Any, **keywords: Any) -> None:
        preset = keywords.get("preset")
        if preset is not None:
            chosen = dict(PRESETS[arguments.choice("preset", preset, list(PRESETS))])
            given = {"model": positional[0], **keywords} if positional else keywords
            chosen = _still_meant(chosen, given)
            if positional:
                del chosen["model"]
            keywords = {**chosen, **keywords}
        initialise(self, *positional, **keywords)

    return cast(_Initialise, with_preset)


def _still_meant(chosen: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Leave out what belongs to a criterion or a network of the preset that is overruled."""
    gone = {*OPTIONS, "distance"} if given.get("criterion", chosen["criterion"]) != chosen["criterion"] else set()
    if canonical_name(given.get("model", chosen["model"])) != canonical_name(chosen["model"]):
        gone.add("layer_weights")
    return {keyword: value for keyword, value in chosen.items() if keyword not in gone}
