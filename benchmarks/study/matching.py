"""How strong each arm's loss is: its gradient at the SR image beside L1's, at the start that all arms share."""

from __future__ import annotations

import importlib
import json
import random
import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.study.matrix import Matrix
from clp_basicsr.binding import BoundModule
from clp_basicsr.gradients import squared_norms
from clp_basicsr.pictures.files import read_image
from clp_basicsr.whole_files import write_text

_CROPS = 64
Pair = tuple[Tensor, Tensor]
"""GT and LR, each ``(1, 3, H, W)``."""


def matched_weights(matrix: Matrix, train: Mapping[str, Path], start: Path, study: Path) -> dict[str, float]:
    """Return each arm's ``loss_weight`` at strength 1; kept in ``weights.json``, beside what it was measured of."""
    path = study / "weights.json"
    known: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    common = {"start": matrix.start, "network_g": matrix.network_g, "crop": matrix.crop}
    wanted = {arm: common | {"loss": matrix.loss(arm)} for arm, keywords in matrix.arms.items() if keywords is not None}
    missing = [arm for arm, of in wanted.items() if known.get(arm, {}).get("of") != of]
    if missing:
        network = load_network(matrix, start)
        seen = list(crops(matrix, train, _CROPS))
        for arm in missing:
            known[arm] = {"weight": _weight(gradient_norms(matrix, arm, network, seen)), "of": wanted[arm]}
        write_text(path, json.dumps(known, indent=1))
    return {arm: known[arm]["weight"] for arm in wanted}


def load_network(matrix: Matrix, checkpoint: Path) -> nn.Module:
    """Return the network of a checkpoint, its averaged weights, on the GPU if there is one."""
    from basicsr.archs import build_network

    network: nn.Module = build_network(dict(matrix.network_g))
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["params_ema"])
    return network.to(device()).eval().requires_grad_(False)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gradient_norms(matrix: Matrix, arm: str, network: nn.Module, seen: Iterable[Pair]) -> Iterator[tuple[float, float]]:
    """Yield the norms of the gradients of an arm's loss, at weight 1, and of L1 at the SR image of each crop."""
    loss = _measurable(matrix.loss(arm), network)
    for target, lr in seen:
        sr = network(lr).requires_grad_()
        pixel, own = squared_norms(loss(sr, target, lr), sr, target, None).sqrt().tolist()
        yield own, pixel


def _weight(norms: Iterable[tuple[float, float]]) -> float:
    """Return L1's gradient over the loss's on the middle one of the crops.

    Not of a batch: a loss in units of the gap GT-LR has by far its largest gradient where that gap is small, and a
    single flat crop would say how weak it is on all others.
    """
    return 1 / statistics.median(own / pixel for own, pixel in norms)


@dataclass
class _Model:
    """What losses look for in the model that trains with them."""

    net_g: nn.Module
    lq: Tensor | None = None


def _measurable(keywords: dict[str, Any], network: nn.Module) -> Callable[..., Tensor]:
    from basicsr.utils.registry import LOSS_REGISTRY

    importlib.import_module("benchmarks.study.losses")
    kind = keywords.pop("type")
    for later in ("start_iter", "warmup_iter"):  # at its full weight, whenever that will be
        keywords.pop(later, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # untrained weights are the matrix's own choice
        loss = LOSS_REGISTRY.get(kind)(**keywords).to(device())
    model = _Model(network)
    if isinstance(loss, BoundModule):
        loss.bind(model)

    def value(sr: Tensor, target: Tensor, lr: Tensor) -> Tensor:
        model.lq = lr
        terms: tuple[Tensor, None] = loss(sr, target)
        return terms[0]

    return value


def crops(matrix: Matrix, train: Mapping[str, Path], count: int) -> Iterator[Pair]:
    """Yield crops of the training images as in the training: GT ``(1, 3, H, W)`` and LR."""
    chance, side = random.Random(0), matrix.crop // matrix.scale
    names = sorted(path.name for path in train["gt"].iterdir())
    for name in chance.choices(names, k=count):
        gt, lr = read_image(train["gt"] / name).to(device()), read_image(train["lq"] / name).to(device())
        top, left = (chance.randint(0, length - side) for length in lr.shape[-2:])
        yield _cut(gt, top, left, side, matrix.scale), _cut(lr, top, left, side, 1)


def _cut(image: Tensor, top: int, left: int, side: int, scale: int) -> Tensor:
    return image[..., top * scale : (top + side) * scale, left * scale : (left + side) * scale]
