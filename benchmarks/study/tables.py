"""A study's results as Markdown: means, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.study.intervals import Interval, interval
from benchmarks.study.judges import JUDGES
from benchmarks.study.matrix import CONTROL
from benchmarks.study.results import Results, arms, differences, groups, values

PULL = "pull"
CONTROLS = (PULL, CONTROL)
_DIGITS = {"psnr": 3, "niqe": 3}
_NETWORKS = ("lite2", "lite1", "vgg16")
_FIRST = (*_NETWORKS, "psnr", "ssim", "fsim", "gmsd", "haarpsi")


def report(results: Results, references: Sequence[str] = CONTROLS) -> Iterator[str]:
    """Yield the lines of the report: for each group the means, and what each arm changes against the references.

    Where there are several groups, an overview comes first: the networks that judge, against the first reference.
    """
    judges = list(next(iter(next(iter(results.values())).values())))
    blocks = [block for block in ([j for j in judges if j in _FIRST], [j for j in judges if j not in _FIRST]) if block]
    if len(groups(results)) > 1:
        yield from _overview(results, references[0], [judge for judge in judges if judge in _NETWORKS] or judges[:2])
    for group in groups(results):
        yield f"## {title(group)}\n"
        yield from _means(results, group, judges)
        for reference in references:
            if reference in arms(results, group):
                yield f"Less `{reference}`, times 1000, with 95 % intervals; bold: the whole interval is better\n"
                for block in blocks:
                    yield from _comparison(results, group, reference, block)


def title(group: tuple[float, bool]) -> str:
    return f"Strength {group[0]:g}, {'with' if group[1] else 'without'} a GAN loss"


def _overview(results: Results, reference: str, judges: Sequence[str]) -> Iterator[str]:
    columns = [(judge, group) for judge in judges for group in groups(results)]
    yield f"Less `{reference}`, times 1000, with 95 % intervals, by strength; bold: the whole interval is better\n"
    yield from _header(
        ["arm", *(f"{_arrow(judge)} {strength:g}{' + GAN' if gan else ''}" for judge, (strength, gan) in columns)]
    )
    compared = dict.fromkeys(arm for group in groups(results) for arm in arms(results, group) if arm != reference)
    for arm in compared:
        cells = [_cell(results, group, arm, reference, judge) for judge, group in columns]
        yield f"| `{arm}` | {' | '.join(cells)} |"
    yield ""


def _means(results: Results, group: tuple[float, bool], judges: list[str]) -> Iterator[str]:
    yield from _header(["arm", "seeds", *(_arrow(judge) for judge in judges)])
    for arm in arms(results, group):
        seeds = len(values(results, group, arm, judges[0]))
        means = [np.mean(list(values(results, group, arm, judge).values())) for judge in judges]
        numbers = [f"{mean:.{_DIGITS.get(judge, 4)}f}" for judge, mean in zip(judges, means)]
        yield f"| `{arm}` | {seeds} | {' | '.join(numbers)} |"
    yield ""


def _comparison(results: Results, group: tuple[float, bool], reference: str, judges: list[str]) -> Iterator[str]:
    yield from _header(["arm", *(_arrow(judge) for judge in judges)])
    for arm in arms(results, group):
        if arm != reference:
            cells = [_cell(results, group, arm, reference, judge) for judge in judges]
            yield f"| `{arm}` | {' | '.join(cells)} |"
    yield ""


def _cell(results: Results, group: tuple[float, bool], arm: str, reference: str, judge: str) -> str:
    pairs = differences(results, group, arm, reference, judge)
    return shown(interval(pairs * 1000), JUDGES[judge].better) if pairs.size else "not run"


def shown(given: Interval, better: int) -> str:
    """Return ``mean (low to high)``, the mean bold where the whole interval is on the better side."""
    mean, low, high = (f"{number:.{1 if abs(given.mean) < 100 else 0}f}" for number in given)
    return f"{f'**{mean}**' if better and given.side == better else mean} ({low} to {high})"


def _header(cells: list[str]) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"
    yield "|---" * len(cells) + "|"


def _arrow(judge: str) -> str:
    return JUDGES[judge].title + {1: " ↑", -1: " ↓", 0: ""}[JUDGES[judge].better]
