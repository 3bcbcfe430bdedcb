"""``clp-basicsr plot``: which logs it finds, how it joins them, what it draws and refuses."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from clp_basicsr.cli import main
from clp_basicsr.pictures.curves import read_run
from clp_basicsr.pictures.plot import draw_curves, running_mean

TAGS = ("losses/l_pix", "clp_pull", "metrics/val/psnr", "clp/gradient_ratio", "clp/relu1_2/pull", "clp/relu2_2/pull")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def session(folder: str, values: Mapping[int, float], tags: tuple[str, ...] = TAGS, suffix: str = "") -> None:
    """Write an events file as one process of BasicSR does."""
    with SummaryWriter(folder, filename_suffix=suffix) as writer:
        for iteration, value in values.items():
            for tag in tags:
                writer.add_scalar(tag, value, iteration)


def curve(run: str, tag: str = "clp_pull") -> dict[int, float]:
    iterations, values = read_run(run).curves[tag]
    return dict(zip(iterations, values))


@pytest.mark.parametrize(
    ("folder", "given"),
    [
        ("tb_logger/a", "a"),
        ("tb_logger/a", "tb_logger/a"),
        ("tb_logger/a", "experiments/a"),
        ("tb_logger/a_archived_20250101_000000", "a_archived_20250101_000000"),
        ("experiments/a/tb_logger", "a"),
        ("experiments/a/tb_logger", "experiments/a/"),
        ("elsewhere/b", "elsewhere/b"),
    ],
)
def test_where_a_log_is_found(folder: str, given: str) -> None:
    session(folder, {1: 0.5, 2: 0.25})
    Path("experiments/a").mkdir(parents=True, exist_ok=True)
    assert curve(given) == {1: 0.5, 2: 0.25}


def test_a_resumed_run_is_joined() -> None:
    session("tb_logger/a", {10: 1.0, 20: 2.0, 30: 3.0, 40: 4.0}, suffix=".1")
    session("tb_logger/a", {30: 30.0, 35: 35.0}, suffix=".2")  # from the state of iteration 20
    session("tb_logger/a", {50: 5.0}, suffix=".3")
    session("tb_logger/a", {50: 6.0}, suffix=".4")
    assert curve("a") == {10: 1.0, 20: 2.0, 30: 30.0, 35: 35.0, 50: 6.0}


def test_a_long_run_keeps_every_point() -> None:
    values = {iteration: float(iteration % 7) for iteration in range(12000)}
    session("tb_logger/a", values, tags=("clp_pull",))
    assert curve("a") == values


def test_picture_of_two_runs(capsys: pytest.CaptureFixture[str]) -> None:
    session("tb_logger/a", {1: 0.5, 2: 0.25})
    session("tb_logger/b", {1: 0.6, 2: 0.5}, tags=TAGS[:1])
    assert main(["plot", "a", "b", "-o", "out/curves.png"]) == 0
    printed = capsys.readouterr().out
    assert "out/curves.png" in printed
    assert "'b' has no clp_ numbers" in printed
    picture = np.asarray(Image.open("out/curves.png"))
    assert picture.shape[1] == 1560
    assert 600 < picture.shape[0] < 800
    assert picture.std() > 20


def test_panels_and_legends() -> None:
    session("tb_logger/a", {1: 0.5, 2: 0.25})
    session("tb_logger/b", {1: 0.6, 3: 0.5})
    figure = draw_curves([read_run("a"), read_run("b")])
    panels = {axes.get_title(): axes for axes in figure.axes if axes.axison}
    assert list(panels) == ["losses/l_pix", "clp_pull", "clp/gradient_ratio", "metrics/val/psnr", "pull, by layer"]
    first, second = panels["clp_pull"].lines
    assert np.array_equal(first.get_xydata(), [[1, 0.5], [2, 0.25]])
    np.testing.assert_allclose(second.get_xydata(), [[1, 0.6], [3, 0.5]], rtol=1e-6)
    legend = panels["clp_pull"].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert first.get_color() != second.get_color()
    layers = panels["pull, by layer"].lines
    assert [line.get_label() for line in layers] == ["relu1_2, a", "relu2_2, a", "relu1_2, b", "relu2_2, b"]
    assert layers[0].get_color() == layers[2].get_color() != layers[1].get_color()
    assert layers[0].get_linestyle() != layers[2].get_linestyle()


def test_names_are_no_formulas() -> None:
    session("tb_logger/run$a$b^_x", {1: 0.5}, ("clp/$x^$/push", "metrics/$y^$/psnr"))
    session("tb_logger/other", {1: 0.5})
    assert main(["plot", "run$a$b^_x", "other", "-o", "out.png"]) == 0


def test_every_line_is_in_the_legend_and_every_legend_in_its_panel() -> None:
    names = [f"clp/blocks.{index}/pull" for index in range(30)]
    session("tb_logger/_mine", {1: 0.5, 2: 0.25}, tags=("clp_pull", *names))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, of lines without a label, of panels without room
        figure = draw_curves([read_run("_mine")])
        figure.draw_without_rendering()
    legends = [axes.get_legend() for axes in figure.axes if axes.axison]
    assert [len(legend.get_texts()) for legend in legends if legend is not None] == [1, 30]
    assert legends[0] is not None
    assert "_mine" in legends[0].get_texts()[0].get_text()
    for legend, axes in zip(legends, figure.axes):
        assert legend is not None
        assert legend.get_window_extent().height < axes.get_window_extent().height


def test_running_mean_looks_back_only() -> None:
    values = np.random.default_rng(0).normal(size=100)
    expected = [values[max(0, place - 4) : place + 1].mean() for place in range(100)]
    np.testing.assert_allclose(running_mean(list(values)), expected)


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    session("tb_logger/mine", {1: 0.5})
    session("tb_logger/plain", {1: 0.5}, tags=TAGS[:1])
    Path("experiments/silent").mkdir(parents=True)
    Path("file").touch()
    with SummaryWriter("tb_logger/young") as writer:
        writer.flush()
    for given, said in (
        (["mime"], "there is no 'mime'"),
        (["mime"], "Did you mean 'mine'?"),
        (["silent"], "`logger: use_tb_logger: true`"),
        (["young"], "holds none yet"),
        (["plain"], "have only ['losses/l_pix']"),
        (["mine", "mine"], "must name each run once"),
        (["mine", "-o", "curves.txt"], "Flag `-o` must name a picture's file, such as plot.png, but got 'curves.txt'"),
        (["mine", "-o", "curves"], "must name a picture's file"),
        (["mine", "-o", "file/curves.png"], "Flag `-o` must name a folder, or a place where one can be made"),
    ):
        assert main(["plot", *given]) == 1
        assert said in capsys.readouterr().err
    assert not Path("plot.png").exists()


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("matplotlib", "pip install '.[pictures]'"),
        ("tensorboard.backend.event_processing.event_accumulator", "needs the package 'tensorboard'"),
    ],
)
def test_missing_packages(
    package: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session("tb_logger/a", {1: 0.5})
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["plot", "a"]) == 1
    assert said in capsys.readouterr().err


def test_a_package_that_is_there_and_does_not_import(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session("tb_logger/a", {1: 0.5})
    broken = Path("broken/tensorboard")
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("import pkg_resources_that_is_gone\n", encoding="utf-8")
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(broken.parent)
    assert main(["plot", "a"]) == 1
    said = capsys.readouterr().err
    assert "'tensorboard', which cannot be imported (No module named 'pkg_resources_that_is_gone')" in said


def test_a_number_that_is_none_leaves_the_others_alone() -> None:
    values = [1.0] * 40
    values[5], values[20] = math.nan, math.inf
    assert running_mean(values).tolist() == pytest.approx([1.0] * 40)
    huge = running_mean([1.0, 1e30, *[1.0] * 40])
    assert huge[10] == 1.0
    assert math.isnan(running_mean([math.nan])[0])
