"""Mistakes in an option file, met through BasicSR's own pipeline."""

import locale
from pathlib import Path
from typing import Any

import pytest

from clp_basicsr.cli import main
from clp_basicsr.hosts import basicsr_launch
from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.options.file import check_sections, read_option_file
from clp_basicsr.hosts.options.losses import check_losses
from hosts.options import PERCEPTUAL, evaluation_options, train_options, write
from hosts.runs import isolated, train


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"loss_wieght": 0.1}, TypeError, "`loss_wieght`.*Did you mean 'loss_weight'?"),
        ({"loss_weight": "1e-4"}, TypeError, "`loss_weight`.*!!float 1e-4"),
        ({"push_weight": "1e-4"}, TypeError, "`push_weight`.*!!float 1e-4"),
        ({"push_weight": "0.5"}, TypeError, "`push_weight`.*Write it without quotes: 0.5"),
        ({"margin": "1e-4"}, (TypeError, ValueError), "`margin`.*!!float 1e-4"),
        ({"layer_weights": {"relu1_2": "1e-1"}}, TypeError, "relu1_2.*!!float 1e-1"),
        ({"perceptual_weight": 1.0}, TypeError, "`perceptual_weight`.*`loss_weight`"),
        ({"criterion": "tripplet"}, ValueError, "`criterion`.*Did you mean 'triplet'?"),
        ({"layer_weights": {"relu1_3": 1.0}}, ValueError, "'relu1_3'"),
    ],
)
def test_what_the_person_reads(
    changed: dict[str, Any], error: type[Exception], message: str, pairs: Path, tmp_path: Path
) -> None:
    options = train_options(pairs, perceptual={**PERCEPTUAL, **changed})
    with pytest.raises(error, match=message):
        train(tmp_path, options)


def test_a_loss_that_cannot_be_built_is_one_line(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(train_options(pairs, perceptual={**PERCEPTUAL, "loss_wieght": 0.1}), tmp_path)
    with isolated(tmp_path):
        assert main(["train", "-opt", str(file)]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("clp-basicsr train: ")
    assert "Did you mean 'loss_weight'?" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize("block", [{}, False, None])
def test_an_empty_block_is_no_loss(block: object, pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, total_iter=1)
    options["train"]["perceptual_opt"] = block
    train(tmp_path, options)


@pytest.mark.parametrize(("name", "given"), [("cri_opt", "CLIPLoss"), ("pixel_opt", "CLLoss")])
def test_other_peoples_losses_may_be_called_nearly_the_same(name: str, given: str, tmp_path: Path) -> None:
    check_losses(tmp_path, {"train": {name: {"type": given}}})


@pytest.mark.parametrize("name", ["pixel_opt", "gan_opt"])
def test_the_loss_where_basicsr_wants_another_kind(name: str, pairs: Path, tmp_path: Path) -> None:
    """It gives a pair, of which BasicSR makes a sum: a TypeError after minutes of building."""
    options = train_options(pairs, model_type="SRGANModel")
    options["train"][name] = dict(PERCEPTUAL)
    with pytest.raises(OptionFileError, match=rf"`train: {name}` .* is a CLPLoss, .* Give it a loss of its own again"):
        check_losses(tmp_path, options)
    del options["train"]["perceptual_opt"]
    with pytest.raises(OptionFileError, match=rf"`train: {name}` .* is a CLPLoss, .* Rename it to `perceptual_opt`"):
        check_losses(tmp_path, options)
    check_losses(tmp_path, {**options, "model_type": "SomebodyElses"})


@pytest.mark.parametrize("name", ["pixel_opt", "perceptual_opt"])
def test_a_loss_that_nobody_has_registered(name: str, pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs)
    options["train"][name]["type"] = "ContrastiveLoss"
    with pytest.raises(
        OptionFileError, match=rf"`train: {name}: type` .* must be one of .*'CLPLoss'.* 'ContrastiveLoss'"
    ):
        check_losses(tmp_path, options)
    check_losses(tmp_path, {**options, "model_type": "SomebodyElses"})


def test_a_name_that_stands_twice(tmp_path: Path) -> None:
    file = tmp_path / "twice.yml"
    file.write_text("a: {b: 1, c: [{d: 1}, {d: 2}]}\ntrain:\n  pixel_opt: 1\n  other: 2\n  pixel_opt: 3\n")
    with pytest.raises(
        OptionFileError, match=r"`pixel_opt` .* must stand once in its block, but stands in lines 3 and 5"
    ):
        read_option_file(file)


def test_a_video_model_that_validates_without_metrics(pairs: Path, tmp_path: Path) -> None:
    options = {**train_options(pairs), "val": {"val_freq": 1}}
    options["datasets"]["val"] = {}
    check_sections(tmp_path, options, training=True)
    options["model_type"] = "EDVRModel"
    with pytest.raises(
        OptionFileError, match=r"`val` .* must have `metrics` with `model_type: EDVRModel`.* `metrics: ~`"
    ):
        check_sections(tmp_path, options, training=True)
    del options["datasets"]["val"]  # nothing to validate: BasicSR does not look
    check_sections(tmp_path, options, training=True)
    options["datasets"]["val"], options["val"]["metrics"] = {}, None
    check_sections(tmp_path, options, training=True)


def test_a_test_file_without_val(pairs: Path, tmp_path: Path) -> None:
    options = evaluation_options(pairs, tmp_path / "net.pth")
    with pytest.raises(OptionFileError, match="has no `val`"):
        check_sections(tmp_path, {**options, "val": None}, training=False)
    check_sections(tmp_path, options, training=False)


def test_a_file_that_is_not_utf_8_is_in_the_machine_s_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gbk.yml"
    file.write_bytes("name: x  # \u6ce8\u91ca".encode("gbk"))
    monkeypatch.setattr(locale, "getpreferredencoding", lambda _: "gbk")
    assert read_option_file(file) == {"name": "x"}


def test_a_loss_at_the_top_of_the_file(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs)
    options["perceptual_opt"] = options["train"].pop("perceptual_opt")
    with pytest.raises(OptionFileError, match=r"Block `perceptual_opt` .* at the top .* belongs below `train:`"):
        train(tmp_path, options)


@pytest.mark.parametrize(
    "flag",
    [
        ["-opt=options.yml"],
        ["-opt", "none.yml", "-opt=options.yml"],
        ["-op", "options.yml"],
        ["--auto", "-op", "options.yml", "--debug"],
    ],
)
def test_a_file_is_checked_however_basicsr_is_given_it(flag: list[str], pairs: Path, tmp_path: Path) -> None:
    write(train_options(pairs, perceptual={**PERCEPTUAL, "type": "CLPloss"}), tmp_path)
    with isolated(tmp_path), pytest.raises(OptionFileError, match="Did you mean 'CLPLoss'"):
        basicsr_launch.train(flag)


def test_no_file_behind_an_equals_sign(tmp_path: Path) -> None:
    with isolated(tmp_path), pytest.raises(FileNotFoundError, match=r"there is none at 'none\.yml'"):
        basicsr_launch.train(["-opt=none.yml"])
