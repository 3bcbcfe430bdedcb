"""The study's arithmetic, against oracles of another kind."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from benchmarks.study.detail import detail_and_artefact, sharpness
from benchmarks.study.intervals import Interval, coverage, interval
from benchmarks.study.matrix import Run
from benchmarks.study.report import main as report_file
from benchmarks.study.results import Results, differences, read_csv, write_csv
from benchmarks.study.tables import report, shown


@pytest.mark.parametrize("shape", [(12, 1), (1, 12)])
def test_interval_over_seeds_or_photos_alone_is_students(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(1).normal(0.3, 1, shape)
    expected = stats.ttest_1samp(values.ravel(), 0).confidence_interval(0.9)
    assert interval(values, confidence=0.9)[1:] == pytest.approx(tuple(expected))


def test_interval_of_crossed_seeds_and_photos_by_plain_loops() -> None:
    values = [[1.0, 4.0, 2.5], [2.0, -3.0, 0.5]]
    mean = sum(map(sum, values)) / 6
    rows, columns = [sum(row) / 3 - mean for row in values], [sum(column) / 2 - mean for column in zip(*values)]
    rest = [values[s][p] - mean - rows[s] - columns[p] for s in range(2) for p in range(3)]
    seeds = 3 * sum(each**2 for each in rows) / 1
    photos = 2 * sum(each**2 for each in columns) / 2
    left = sum(each**2 for each in rest) / 2
    variance = max(seeds + photos - left, seeds, photos, left)
    degrees = max(1, variance**2 / (seeds**2 / 1 + photos**2 / 2 + left**2 / 2))
    half = stats.t.ppf(0.975, degrees) * math.sqrt(variance / 6)
    assert interval(np.array(values)) == pytest.approx((mean, mean - half, mean + half))


@pytest.mark.parametrize("spreads", [(1, 1, 1), (0, 1, 0.3), (1, 0, 0.3), (0, 0, 1)])
def test_intervals_hold_the_truth_as_often_as_they_say(spreads: tuple[float, float, float]) -> None:
    assert coverage(3, 4, spreads, tables=500) > 0.92


def test_one_number_says_nothing() -> None:
    assert interval(np.array([[2.0]])) == (2.0, -math.inf, math.inf)


def test_interval_without_spread_and_its_side() -> None:
    assert interval(np.full((3, 4), 2.0)) == pytest.approx((2.0, 2.0, 2.0))
    assert [Interval(0, *ends).side for ends in ((1, 2), (-2, -1), (-1, 1))] == [1, -1, 0]


def _waves(frequency: float, phase: float = 0.0, side: int = 128) -> Tensor:
    x = torch.arange(side, dtype=torch.float64)
    return torch.cos(2 * math.pi * frequency * x + phase).expand(1, 3, side, side)


def test_sharpness_is_the_square_of_contrast() -> None:
    target = _waves(0.2) + _waves(0.05).transpose(-1, -2)
    assert sharpness(target, target) == pytest.approx(1)
    assert sharpness(0.5 * target + 7, target) == pytest.approx(0.25)


def test_detail_is_the_share_along_gt_and_artefact_what_is_at_right_angles() -> None:
    target, other = _waves(0.25), _waves(0.25, math.pi / 2)  # of equal size, and orthogonal over whole periods
    assert detail_and_artefact(target, target, 4) == pytest.approx((1, 0), abs=1e-9)
    detail, artefact = detail_and_artefact(0.4 * target + 0.3 * other, target, 4)
    assert detail == pytest.approx(0.4, abs=0.01)
    assert artefact == pytest.approx(0.3, abs=0.01)
    assert detail_and_artefact(_waves(0.25).transpose(-1, -2), target, 4) == pytest.approx((0, 1), abs=0.02)


def test_high_band_is_what_lr_cannot_show() -> None:
    """Half of a wave at LR's Nyquist frequency is in it, nothing of a slow one, all of the fastest one."""
    target = _waves(0.5)
    for frequency, share in ((0.125, 0.5), (0.01, 0.0), (0.5, 1.0)):
        sr = _waves(frequency)
        detail, artefact = detail_and_artefact(sr, target, 4)
        size = math.hypot(detail, artefact) * (target.norm() / sr.norm())  # the whole high band of `sr`
        assert float(size) == pytest.approx(share, abs=0.03)


def _results() -> Results:
    numbers = iter(range(100))
    runs = [Run("none", 0.0, False, 0), *(Run(arm, 4.0, False, seed) for seed in (1, 0) for arm in ("pull", "ratio"))]
    return {run: {photo: {"psnr": 20 + next(numbers) / 7} for photo in ("b", "a")} for run in runs[:-1]}


def test_csv_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_csv(_results(), path)
    again = read_csv(path)
    assert list(again) == list(_results())
    for run, scores in _results().items():
        assert {photo: numbers["psnr"] for photo, numbers in again[run].items()} == pytest.approx(
            {photo: numbers["psnr"] for photo, numbers in scores.items()}, rel=1e-5
        )


def test_differences_are_of_the_same_seed_and_photo() -> None:
    results = _results()
    found = differences(results, (4.0, False), "ratio", "pull", "psnr")
    one, other = (results[Run(arm, 4.0, False, 1)] for arm in ("ratio", "pull"))
    results[Run("pull", 4.0, False, 1)] = dict(reversed(other.items()))
    assert np.array_equal(found, differences(results, (4.0, False), "ratio", "pull", "psnr")), "in whatever order"
    assert found.tolist() == [[one[photo]["psnr"] - other[photo]["psnr"] for photo in ("a", "b")]]
    assert differences(results, (4.0, False), "pull", "none", "psnr").shape == (1, 2), "the control has no strength"


def test_bold_is_what_is_better_as_a_whole() -> None:
    assert shown(Interval(2, 1, 3), 1) == "**2.0** (1.0 to 3.0)"
    assert shown(Interval(2, 1, 3), -1) == shown(Interval(2, 1, 3), 0) == "2.0 (1.0 to 3.0)"
    assert shown(Interval(2, -1, 3), 1) == "2.0 (-1.0 to 3.0)"
    text = "\n".join(report(_results()))
    assert "| `none` | 1 | 20.071 |" in text
    assert "| `ratio` | 1 |" in text


def test_overview_has_a_column_for_each_judge_and_group() -> None:
    one, other = _results(), {Run(run.arm, 1.0, True, run.seed): scores for run, scores in _results().items()}
    lines = list(report({**one, **{run: scores for run, scores in other.items() if run.arm != "none"}}))
    assert lines[1] == "| arm | PSNR ↑ 4 | PSNR ↑ 1 + GAN |"
    (ratio,) = (line for line in lines[:6] if line.startswith("| `ratio` |"))
    left, right = ratio.split(" | ")[1:]
    assert left == right.removesuffix(" |")
    assert "| `none` |" in "\n".join(lines[:6])
    assert next(iter(report(one))).startswith("## Strength 4")


def test_report_of_a_csv_file_against_an_arm_of_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    write_csv(_results(), tmp_path / "results.csv")
    report_file([str(tmp_path / "results.csv"), "-o", str(tmp_path / "tables"), "--against", "ratio"])
    printed = capsys.readouterr().out
    assert "Less `ratio`" in printed
    assert "Less `pull`" not in printed
    assert (tmp_path / "tables" / "results.md").read_text() in printed + "\n"
    assert (tmp_path / "tables" / "results.png").stat().st_size
