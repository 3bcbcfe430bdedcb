"""Data that BasicSR would train nothing with, or fail on hours later: said before the first iteration."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from clp_basicsr.cli import main
from clp_basicsr.hosts.first_images import check_first_images
from clp_basicsr.hosts.full_batches import check_batches
from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.unfit_pairs import UnfitPairError
from hosts.options import Options, train_options, with_validation, write
from hosts.runs import isolated, python, train

NIQE = {"type": "calculate_niqe", "crop_border": 4, "better": "lower"}


def written(folder: Path, gt: tuple[int, int], lq: tuple[int, int]) -> Path:
    """Write a pair of the given (height, width)."""
    for part, size in (("gt", gt), ("lq", lq)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / part / "one.png"), noise)
    return folder


def validated(pairs: Path, held_out: Path, **metrics: Any) -> Options:
    """Return options of a run of one iteration with a validation."""
    options = with_validation(train_options(pairs, total_iter=1), held_out, every=1)
    options["val"]["metrics"] |= metrics
    return options


def error_line(options: Options, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with isolated(folder):
        assert main(["train", "-opt", str(write(options, folder))]) == 1
    lines = capsys.readouterr().err.splitlines()
    return next(line for line in lines if line.startswith("clp-basicsr train: "))


@pytest.mark.parametrize(("batch", "ratio", "fits"), [(5, 1, False), (9, 2, False), (4, 1, True), (8, 2, True)])
def test_a_batch_that_is_never_full(batch: int, ratio: int, fits: bool, pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, total_iter=1)
    options["datasets"]["train"] |= {"batch_size_per_gpu": batch, "dataset_enlarge_ratio": ratio}
    if fits:
        train(tmp_path, options)
        return
    with pytest.raises(OptionFileError, match=rf"with {batch}, and 4 images times {ratio}, no batch is ever full"):
        train(tmp_path, options)


@pytest.mark.parametrize("several", [{"dist": True, "world_size": 2}, {"num_gpu": 2}])
def test_a_batch_of_several_gpus(several: Options) -> None:
    data = {"batch_size_per_gpu": 3}
    opt = {"dist": False, "world_size": 1, "num_gpu": 1, "datasets": {"train": data}, **several}

    class Loader(list[Any]):
        dataset = range(4)

    check_batches(opt, Loader([1]))
    with pytest.raises(OptionFileError, match="`dataset_enlarge_ratio`, divided among 2 GPUs or processes: with 3"):
        check_batches(opt, Loader())


def test_no_images_at_all(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs)
    (tmp_path / "empty").mkdir()
    options["datasets"]["train"] |= {"dataroot_gt": str(tmp_path / "empty"), "dataroot_lq": str(tmp_path / "empty")}
    with pytest.raises(OptionFileError, match="must hold images, but it has none"):
        train(tmp_path, options)


@pytest.mark.parametrize("gt", [(120, 128), (128, 120), (64, 64), (160, 160)])
def test_a_validation_pair_of_another_scale(
    gt: tuple[int, int], pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_line(validated(pairs, written(tmp_path, gt, (32, 32))), tmp_path, capsys)
    assert "The first image of validation set `held_out`" in line
    assert "must be smaller than its GT by `scale`, 4, but it has 32 x 32 pixels" in line
    assert f"gt/one.png' {gt[1]} x {gt[0]}" in line


@pytest.mark.parametrize("gt", [(128, 128), (131, 139)])
def test_a_validation_pair_of_this_scale(gt: tuple[int, int], pairs: Path, tmp_path: Path) -> None:
    """BasicSR cuts off what benchmarks' GT has more."""
    train(tmp_path, validated(pairs, written(tmp_path, gt, (32, 32))))


def test_a_validation_that_compares_nothing(pairs: Path, tmp_path: Path) -> None:
    options = validated(pairs, written(tmp_path, (64, 64), (32, 32)))
    options["val"]["metrics"] = {}
    train(tmp_path, options)


@pytest.mark.parametrize(("lq", "fits"), [((26, 49), False), ((49, 26), False), ((26, 50), True), ((50, 26), True)])
def test_niqe_of_a_small_image(lq: tuple[int, int], fits: bool, pairs: Path, tmp_path: Path) -> None:
    """104 x 200 pixels at scale 4, less a border of 4: two blocks of 96."""
    options = validated(pairs, written(tmp_path, (lq[0] * 4, lq[1] * 4), lq), sharp=NIQE)
    if fits:
        train(tmp_path, options)
        return
    with pytest.raises(
        OptionFileError, match=r"at least 96 x 192 pixels inside `crop_border` for `val: metrics: sharp`"
    ):
        train(tmp_path, options)


def test_niqe_of_images_without_gt(pairs: Path, tmp_path: Path) -> None:
    options = validated(pairs, pairs, sharp=NIQE)
    options["val"]["metrics"].pop("psnr")
    options["datasets"]["val"]["type"] = "SingleImageDataset"
    with pytest.raises(OptionFileError, match="it becomes 96 x 96"):
        train(tmp_path, options)


def test_a_validation_image_that_cannot_be_read(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, (128, 128), (32, 32))
    (tmp_path / "lq" / "one.png").write_bytes(b"no image")
    line = error_line(validated(pairs, tmp_path), tmp_path, capsys)
    assert f"{tmp_path / 'lq' / 'one.png'}" in line
    assert "cannot be read" in line


def test_the_validation_is_left_as_it_was(pairs: Path, tmp_path: Path) -> None:
    """A look at the first image must not change what the validation reads, nor the random choices of the training."""
    from basicsr.data import build_dataset

    data = {**with_validation(train_options(pairs), pairs, every=1)["datasets"]["val"], "phase": "val", "scale": 4}
    dataset = build_dataset(data)
    before = dict(dataset.opt)
    loader = SimpleNamespace(dataset=dataset)
    opt = {"model_type": "SRModel", "rank": 0, "val": {"metrics": {"psnr": {"type": "calculate_psnr"}}}, "scale": 4}
    check_first_images(opt, loader, [loader])
    assert {**dataset.opt, "io_backend": before["io_backend"]} == before
    assert dataset[0]["gt"].shape[-1] == 96


@pytest.mark.parametrize(
    "changed",
    [
        {"model_type": "ModelOfTheirOwn"},
        {"rank": 1},
        {"val": None},
        {"scale": None},
    ],
)
def test_validations_of_which_nothing_is_known(changed: Options, pairs: Path, tmp_path: Path) -> None:
    from basicsr.data import build_dataset

    written(tmp_path, (64, 64), (32, 32))
    data = {**with_validation(train_options(pairs), tmp_path, every=1)["datasets"]["val"], "phase": "val", "scale": 4}
    loader = SimpleNamespace(dataset=build_dataset(data))
    opt = {"model_type": "SRModel", "rank": 0, "val": {"metrics": {"psnr": {"type": "calculate_psnr"}}}, "scale": 4}
    with pytest.raises(OptionFileError, match="must be smaller than its GT"):
        check_first_images(opt, loader, [loader])
    check_first_images({**opt, **changed}, loader, [loader])
    check_first_images(opt, SimpleNamespace(dataset=[]), [loader])  # a training set of somebody else's


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("gt", "lq", "why"),
    [((120, 128), (32, 32), r"Scale mismatches. GT \(120, 128\) is not 4x"), ((32, 32), (8, 8), "smaller than patch")],
)
def test_a_training_pair_that_does_not_fit(
    workers: int, gt: tuple[int, int], lq: tuple[int, int], why: str, tmp_path: Path
) -> None:
    options = train_options(written(tmp_path, gt, lq))
    options["datasets"]["train"] |= {"num_worker_per_gpu": workers, "batch_size_per_gpu": 1}
    with pytest.raises(UnfitPairError) as raised:
        train(tmp_path, options)
    assert str(raised.value).startswith(f"GT '{tmp_path / 'gt' / 'one.png'}' and its LR cannot be trained with: ")
    assert raised.match(why)
    assert len(str(raised.value).splitlines()) == 1


def test_a_pair_that_does_not_fit_in_a_spawned_worker(tmp_path: Path) -> None:
    """As BasicSR starts its workers under torchrun."""
    options = train_options(written(tmp_path, (120, 128), (32, 32)))
    options["datasets"]["train"] |= {"num_worker_per_gpu": 1, "batch_size_per_gpu": 1}
    command = ("torch.distributed.run", "--standalone", "--nproc_per_node=1", "-m", "clp_basicsr.cli", "train")
    run = python("-m", *command, "-opt", str(write(options, tmp_path)), folder=tmp_path)
    said = next(line for line in run.stderr.splitlines() if line.startswith("clp-basicsr train: "))
    assert said.startswith(f"clp-basicsr train: GT '{tmp_path / 'gt' / 'one.png'}' and its LR cannot be trained with")
