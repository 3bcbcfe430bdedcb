"""What the arms' networks make of the judged photos, side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.study import data, runs
from benchmarks.study.images import pairs
from benchmarks.study.judges import JUDGES
from benchmarks.study.matrix import Matrix, Run
from benchmarks.study.pictures import side_by_side
from benchmarks.study.results import Scores, groups
from clp_basicsr.images import resize_to
from clp_basicsr.pictures.files import as_bytes

_CROP = 72


def draw(matrix: Matrix, study: Path, part: str, title: str, arms: Collection[str] | None = None) -> None:
    """Write a picture for each group, of the matrix's first seed: a row for each photo, a column for each arm.

    Args:
        matrix: what the study is made of.
        study: where it was done.
        part: "development" or "test".
        title: how the files' names begin.
        arms: those to show; None for all.
    """
    shown = pairs(data.folders(matrix, study)[part])
    judged = runs.read_scores(study, part, matrix.runs())
    first = {
        run: scores
        for run, scores in judged.items()
        if run.seed == matrix.seeds[0] and (arms is None or run.arm in arms)
    }
    for group in groups(judged):
        strengths = (0.0, group[0])
        chosen = {run: first[run] for run in first if run.gan == group[1] and run.strength in strengths}
        rows = [_row(matrix, study, chosen, name, *pair) for name, pair in shown.items()]
        side_by_side(rows, study / f"{title}_x{group[0]:g}{'_gan' if group[1] else ''}.png")


def _row(
    matrix: Matrix, study: Path, chosen: Mapping[Run, Scores], name: str, target: Tensor, lr: Tensor
) -> dict[str, NDArray[np.uint8]]:
    bicubic = resize_to(lr, (target.shape[-2], target.shape[-1])).clamp(0, 1)
    images = {f"{name}: GT": target, "bicubic": bicubic}
    judge = matrix.judges[0]
    for run, scores in chosen.items():
        caption = f"{run.arm}\n{JUDGES[judge].title} {scores[name][judge]:.3f}"
        images[caption] = runs.super_resolved(matrix, study, run.name, lr).cpu()
    top, left = _most_structured(target, matrix.scale)
    cut = (slice(None), slice(None), slice(top, top + _CROP), slice(left, left + _CROP))
    return {arm: as_bytes(image[cut]) for arm, image in images.items()}


def _most_structured(target: Tensor, scale: int) -> tuple[int, int]:
    """Return top and left of the crop with the most gradient energy at the size of LR."""
    grey = F.avg_pool2d(target.mean(1, keepdim=True), scale)
    energy = grey.diff(dim=-1)[..., 1:, :].square() + grey.diff(dim=-2)[..., 1:].square()
    sums = F.avg_pool2d(energy, _CROP // scale, stride=1)[0, 0]
    top, left = divmod(int(sums.argmax()), sums.shape[-1])
    return top * scale, left * scale
