"""Which crops an arm's gradient comes from, at the start that all arms share.

python -m benchmarks.study.shares benchmarks/study/flat.yml -o FOLDER       FOLDER as benchmarks.study left it
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.study import data, options
from benchmarks.study.matching import crops, gradient_norms, load_network
from benchmarks.study.matrix import CONTROL, START, read_matrix
from clp_basicsr.hosts.basicsr import register

_CROPS = 400


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study.shares",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("matrix", type=Path, help="a YAML file such as benchmarks/study/flat.yml")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the study's folder")
    given = parser.parse_args(arguments)
    study = given.output.resolve()
    matrix = read_matrix(given.matrix).with_weights_in(study)
    register()
    network = load_network(matrix, study / options.checkpoint(START))
    seen = list(crops(matrix, data.folders(matrix, study)["train"], _CROPS))
    print("| arm | largest over median | 90 % over median | share of the squares in 5 % of the crops |")
    print("|---|---|---|---|")
    for arm in matrix.arms:
        if arm != CONTROL:
            norms = torch.tensor([own for own, _ in gradient_norms(matrix, arm, network, seen)])
            print(f"| `{arm}` | {' | '.join(_shares(norms))} |", flush=True)


def _shares(norms: torch.Tensor) -> tuple[str, str, str]:
    relative = norms / norms.median()
    squares = norms.square().sort(descending=True).values
    top = squares[: len(squares) // 20].sum() / squares.sum()
    return f"{relative.max():.1f}", f"{relative.quantile(0.9):.1f}", f"{top:.0%}"


if __name__ == "__main__":
    main()
