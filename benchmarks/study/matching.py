"""How strong each arm's loss is: its gradient at the SR image beside L1's, at the start that all arms share."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.study.images import read
from benchmarks.study.matrix import Matrix
from clp_basicsr import CLPLoss
from clp_basicsr.gradients import squared_norms

_BATCHES = 8


def matched_weights(matrix: Matrix, train: Mapping[str, Path], start: Path, study: Path) -> dict[str, float]:
    """Return each arm's ``loss_weight`` at strength 1; measured once and kept in ``weights.json``."""
    path = study / "weights.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    missing = [arm for arm, keywords in matrix.arms.items() if keywords is not None and arm not in known]
    if missing:
        network = load_network(matrix, start)
        batches = [_batch(matrix, train, seed) for seed in range(_BATCHES)]
        for arm in missing:
            known[arm] = _weight(_measurable(matrix.loss(arm)), network, batches)
        path.write_text(json.dumps(known, indent=1))
    return known


def load_network(matrix: Matrix, checkpoint: Path) -> nn.Module:
    """Return the network of a checkpoint, its averaged weights, on the GPU if there is one."""
    from basicsr.archs import build_network

    network: nn.Module = build_network(dict(matrix.network_g))
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["params_ema"])
    return network.to(device()).eval().requires_grad_(False)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _weight(loss: Callable[..., Tensor], network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    pixel = own = 0.0
    for target, lr in batches:
        sr = network(lr).requires_grad_()
        norms = squared_norms(loss(sr, target, lr), sr, target, None).sqrt()
        pixel, own = pixel + float(norms[0]), own + float(norms[1])
    return pixel / own


def _measurable(keywords: dict[str, Any]) -> Callable[..., Tensor]:
    kind = keywords.pop("type")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # untrained weights are the matrix's own choice
        if kind == "CLPLoss":
            return CLPLoss(**keywords, diagnostics=False).to(device())
        from benchmarks.study.feature_l1 import FeatureL1Loss

        loss = FeatureL1Loss(**keywords).to(device())
    return lambda sr, target, lr: loss(sr, target)[0]


def _batch(matrix: Matrix, train: Mapping[str, Path], seed: int) -> tuple[Tensor, Tensor]:
    """Return crops of the training images as in the training: GT ``(N, 3, H, W)`` and LR."""
    chance, side = random.Random(seed), matrix.crop // matrix.scale
    names = sorted(path.name for path in train["gt"].iterdir())
    crops = []
    for name in chance.choices(names, k=matrix.batch):
        gt, lr = read(train["gt"] / name), read(train["lq"] / name)
        top, left = (chance.randint(0, length - side) for length in lr.shape[-2:])
        crops.append((_cut(gt, top, left, side, matrix.scale), _cut(lr, top, left, side, 1)))
    gts, lrs = zip(*crops)
    return torch.cat(gts).to(device()), torch.cat(lrs).to(device())


def _cut(image: Tensor, top: int, left: int, side: int, scale: int) -> Tensor:
    return image[..., top * scale : (top + side) * scale, left * scale : (left + side) * scale]
