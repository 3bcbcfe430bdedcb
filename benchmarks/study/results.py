"""All numbers of a study in one CSV file: a line for each run and photo, a column for each judge."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.study.matrix import CONTROL, Run

Scores = dict[str, dict[str, float]]
"""By photo and judge."""
Results = dict[Run, Scores]

_RUN = ("arm", "strength", "gan", "seed")


def write_csv(results: Mapping[Run, Scores], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        judges = list(next(iter(next(iter(results.values())).values())))
        writer.writerow([*_RUN, "photo", *judges])
        for run, scores in results.items():
            for photo, numbers in scores.items():
                who = [run.arm, f"{run.strength:g}", int(run.gan), run.seed, photo]
                writer.writerow([*who, *(f"{numbers[judge]:.6g}" for judge in judges)])


def read_csv(path: Path) -> Results:
    results: Results = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            arm, strength, gan, seed = (line.pop(key) for key in _RUN)
            run, photo = Run(arm, float(strength), gan == "1", int(seed)), line.pop("photo")
            results.setdefault(run, {})[photo] = {judge: float(number) for judge, number in line.items()}
    return results


def groups(results: Results) -> list[tuple[float, bool]]:
    """Return the pairs of strength and GAN that arms were trained with, in their order."""
    return list(dict.fromkeys((run.strength, run.gan) for run in results if run.arm != CONTROL))


def arms(results: Results, group: tuple[float, bool]) -> list[str]:
    """Return the arms of a group, the control first if it was trained."""
    strength, gan = group
    return list(dict.fromkeys(run.arm for run in results if run.gan == gan and run.strength in (0.0, strength)))


def values(results: Results, group: tuple[float, bool], arm: str, judge: str) -> dict[int, list[float]]:
    """Return an arm's numbers, photo by photo, by seed; photos are in the same order everywhere."""
    strength, gan = (0.0 if arm == CONTROL else group[0]), group[1]
    found = {run: scores for run, scores in results.items() if (run.arm, run.strength, run.gan) == (arm, strength, gan)}
    return {run.seed: [scores[photo][judge] for photo in sorted(scores)] for run, scores in found.items()}


def differences(
    results: Results, group: tuple[float, bool], arm: str, reference: str, judge: str
) -> NDArray[np.float64]:
    """Return arm less reference, seed by seed and photo by photo ``(S, P)``; of seeds that both were trained with."""
    own, other = (values(results, group, each, judge) for each in (arm, reference))
    return np.array([np.subtract(own[seed], other[seed]) for seed in sorted(own.keys() & other.keys())])
