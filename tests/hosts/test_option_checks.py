"""Mistakes in a BasicSR option file that are said in one line, before BasicSR starts or makes a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import basicsr.train
import pytest
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

from clp_basicsr.cli import main
from clp_basicsr.hosts.basicsr_metrics import METRICS
from clp_basicsr.hosts.options import numbers
from clp_basicsr.hosts.options.checks import check_options
from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.options.file import read_option_file
from clp_basicsr.hosts.options.flags import read_flags
from hosts.options import Options, evaluation_options, train_options, with_validation, write

FILES = sorted((Path(__file__).parents[2] / "options" / "train").glob("[!n]*/*.yml"))
DEMO = Path(__file__).parents[2] / "clp_basicsr" / "demo" / "train_demo_x4.yml"
MISSING = object()

Say = Callable[..., str]


@pytest.fixture
def options(pairs: Path) -> Options:
    return with_validation(train_options(pairs, model_type="SRGANModel"), pairs, every=4)


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Return what is printed, in one line, instead of a training; ``""`` where BasicSR gets to see the file."""
    reached: list[str] = []
    monkeypatch.setattr(basicsr.train, "train_pipeline", reached.append)
    monkeypatch.chdir(tmp_path)

    def run(options: Options, *flags: str) -> str:
        reached.clear()
        status = main(["train", "-opt", str(write(options, tmp_path)), *flags])
        printed = capsys.readouterr().err
        assert status == (0 if reached else 1)
        assert len(printed.splitlines()) == status
        return printed

    return run


def put(options: Options, where: str, value: object) -> Options:
    *blocks, last = where.split(": ")
    inner = options
    for block in blocks:
        inner = inner[block]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return options


def test_metrics_that_check_their_numbers_themselves_are_the_packages() -> None:
    assert {"CLPLoss", *(metric.__name__ for metric in METRICS)} == set(numbers._CHECK_THEMSELVES)


@pytest.mark.parametrize(
    ("where", "value", "cure"),
    [
        ("train: optim_g: lr", "1e-4", "YAML reads 1e-4 as text: write it as `!!float 1e-4`."),
        ("train: optim_d: lr", "1e-4", "!!float 1e-4"),
        ("train: optim_g: betas", [0.9, "99e-2"], "!!float 99e-2"),
        ("train: scheduler: milestones", [1, "5e3"], "!!float 5e3"),
        ("train: total_iter", "2e5", "!!float 2e5"),
        ("train: pixel_opt: loss_weight", "1e-2", "!!float 1e-2"),
        ("val: val_freq", "5e3", "!!float 5e3"),
        ("val: metrics: psnr: crop_border", "4", "Write it without quotes: 4"),
        ("logger: save_checkpoint_freq", "5e3", "!!float 5e3"),
        ("datasets: train: num_worker_per_gpu", "6", "Write it as 6, without quotes."),
        ("datasets: train: batch_size_per_gpu", "1e1", "Write it as 10, without quotes."),
        ("scale", "4", "Write it as 4, without quotes."),
    ],
)
def test_a_number_that_is_text(where: str, value: object, cure: str, options: Options, say: Say) -> None:
    printed = say(put(options, where, value))
    assert f"Option `{where}` in" in printed
    assert "must be a number, but got the text" in printed
    assert cure in printed


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("name", "1e-4"),
        ("train: total_iter", "400000"),  # BasicSR makes an int of it
        ("datasets: train: name", "2020"),
        ("datasets: train: filename_tmpl", "4"),
        ("datasets: train: sigma", "25"),  # somebody's own
        ("val: suffix", "4"),
        ("train: own_opt", {"type": "SomebodysLoss", "layers": "3"}),
        ("path: param_key_g", "1"),
    ],
)
def test_text_that_may_look_like_a_number(where: str, value: object, options: Options, say: Say) -> None:
    assert say(put(options, where, value)) == ""


def test_a_number_of_the_command_line(options: Options, say: Say) -> None:
    assert "`train: optim_g: lr`" in say(options, "--force_yml", "train:optim_g:lr=1e-4")
    assert say(options, "--force_yml", "train:optim_g:lr=!!float1e-4") == ""


@pytest.mark.parametrize(
    ("where", "value", "meant"),
    [
        ("model_type", "SRGanModel", "'SRGANModel'"),
        ("datasets: train: type", "PairedImageDatset", "'PairedImageDataset'"),
        ("datasets: val: type", "RealESRGANDatasets", "'RealESRGANDataset'"),
        ("network_g: type", "RRDBnet", "'RRDBNet'"),
        ("network_d: type", "UNetDiscriminator", "'UNetDiscriminatorSN'"),
    ],
)
def test_an_unknown_type(where: str, value: object, meant: str, options: Options, say: Say) -> None:
    printed = say(put(options, where, value))
    assert f"Option `{where}` in" in printed
    assert f"but got '{value}'. Did you mean {meant}?" in printed
    assert "--import PACKAGE" in printed


def test_a_network_that_is_not_built_may_be_anything(options: Options, pairs: Path, tmp_path: Path, say: Say) -> None:
    options["network_d"]["type"] = "VGGStyleDiscriminator128"  # BasicSR's before 1.3
    assert say({**options, "model_type": "SRModel"}) == ""
    testing = {**evaluation_options(pairs, tmp_path / "net.pth"), "network_d": options["network_d"]}
    (tmp_path / "net.pth").touch()
    check_options(tmp_path, testing, read_flags([]), training=False)


class SomebodysModel:
    """Builds its networks in its own way, from a URL."""


class SomebodysDataset:
    """Reads what it wants."""


@pytest.fixture
def somebodys(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry, entry in ((MODEL_REGISTRY, SomebodysModel), (DATASET_REGISTRY, SomebodysDataset)):
        monkeypatch.setitem(registry._obj_map, entry.__name__, entry)


@pytest.mark.usefixtures("somebodys")
def test_what_other_packages_registered_is_theirs_to_judge(options: Options, say: Say) -> None:
    put(options, "model_type", "SomebodysModel")
    put(options, "network_g: type", "SomebodysNetwork")
    put(options, "path: pretrain_network_g", "https://example.org/net.pth")
    data = {"type": "SomebodysDataset", "dataroot_gt": "hub/images", "gt_size": 130}
    options["datasets"] = {"train": data, "val": dict(data)}
    assert say(options) == ""


@pytest.mark.parametrize(
    ("where", "value", "what"),
    [
        ("datasets: train: dataroot_gt", "d/gtt", "a folder"),
        ("datasets: train: dataroot_lq", "d/gtt", "a folder"),
        ("datasets: val: dataroot_lq", "d/gtt", "a folder"),
        ("datasets: train: meta_info_file", "d/list.txt", "a file"),
        ("path: pretrain_network_g", "d/net.pth", "a file"),
        ("path: pretrain_network_d", "d/net.pth", "a file"),
    ],
)
def test_what_is_not_there(where: str, value: str, what: str, options: Options, say: Say) -> None:
    printed = say(put(options, where, value))
    assert f"Option `{where}` in" in printed
    assert f"must be {what}, but there is none at '{value}' (from '{Path.cwd()}')." in printed


@pytest.mark.parametrize("folders", ["d/neg", ["gt", "d/neg"]])
def test_negatives_that_are_not_there(folders: object, options: Options, pairs: Path, say: Say) -> None:
    folders = [str(pairs / "gt"), "d/neg"] if isinstance(folders, list) else folders
    options["datasets"]["train"] |= {"type": "PairedNegativeDataset", "dataroot_neg": folders}
    assert "`datasets: train: dataroot_neg`" in say(options)


@pytest.mark.parametrize("type_", ["PairedImageDataset", "PairedNegativeDataset"])
@pytest.mark.parametrize("value", [MISSING, None])
def test_a_folder_that_is_not_given(type_: str, value: object, options: Options, pairs: Path, say: Say) -> None:
    options["datasets"]["train"] |= {"type": type_, "dataroot_neg": str(pairs / "gt")}
    options["datasets"]["train"]["dataroot_lr"] = str(pairs / "lq")
    printed = say(put(options, "datasets: train: dataroot_lq", value))
    assert f"is of type {type_} and must have `dataroot_lq`, but has only" in printed
    assert "Did you mean it by `dataroot_lr`?" in printed


@pytest.mark.parametrize(
    "given",
    [
        {"dataroot_gt": ["a", "b"], "dataroot_lq": ["a", "b"]},
        {"dataroot_gt": "d/gtt", "io_backend": {"type": "memcached", "server_list_cfg": "x"}},
        {"dataroot_gt": "d/gtt", "io_backend": "own"},
        {"meta_info_file": None},
        {"meta_info": "d/list.txt"},  # PairedImageDataset does not read it
        {"meta_info_file": "d/list.txt", "io_backend": {"type": "lmdb"}},
        {"type": "SingleImageDataset", "dataroot_gt": "d/gtt"},
    ],
)
def test_places_of_which_nothing_is_known(given: Options, options: Options, say: Say) -> None:
    options["datasets"]["train"] |= given
    assert say(options) == ""


def test_a_list_of_whole_paths_needs_no_folder(options: Options, pairs: Path, tmp_path: Path, say: Say) -> None:
    name = next((pairs / "gt").iterdir())
    (tmp_path / "list.txt").write_text(f"{name} (96,96,3)\n")
    options["datasets"]["train"] |= {"meta_info_file": str(tmp_path / "list.txt"), "dataroot_gt": "d/gtt"}
    assert say(options) == ""
    (tmp_path / "list.txt").write_text(f"{name.name} (96,96,3)\n")
    assert "`datasets: train: dataroot_gt`" in say(options)


@pytest.mark.parametrize("resuming", [("--auto_resume",), ("--auto",), ("--force_yml", "path:resume_state=1.state")])
def test_a_run_that_resumes_does_not_need_what_it_began_with(
    resuming: tuple[str, ...], options: Options, say: Say
) -> None:
    put(options, "path: pretrain_network_g", "d/net.pth")
    assert say(options)
    assert say(options, *resuming) == ""


@pytest.mark.parametrize(("size", "cure"), [(66, "Write 64 or 68."), (3, "Write 4.")])
def test_crops_that_are_no_multiple_of_the_scale(size: int, cure: str, options: Options, say: Say) -> None:
    printed = say(put(options, "datasets: train: gt_size", size))
    assert f"must be a multiple of `scale`, 4, but got {size}" in printed
    assert cure in printed
    assert say({**options, "scale": 3 if size == 66 else 1}) == ""


@pytest.mark.parametrize("file", [*FILES, DEMO], ids=lambda file: file.stem)
def test_of_the_option_files_only_the_data_are_missing(file: Path) -> None:
    with pytest.raises(OptionFileError, match=r"must be a (folder|file), but there is none at '(datasets|exp)"):
        check_options(file, read_option_file(file), read_flags([]), training=True)


@pytest.mark.parametrize(
    "data", [{}, {"type": "SingleImageDataset", "dataroot_lq": "."}, {"type": "RealESRGANDataset", "dataroot_gt": "."}]
)
def test_other_data_sets_may_lack_what_pairs_need(data: Any, options: Options, say: Say) -> None:
    options["datasets"]["train"] = data
    assert say(options) == ""
