"""The demo, shortened, through BasicSR's real pipeline."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

if importlib.util.find_spec("basicsr") is None:
    pytest.skip("the demo trains with BasicSR, which is not installed", allow_module_level=True)

from basicsr.utils.options import ordered_yaml
from hosts.runs import isolated

from clp_basicsr.cli import main
from clp_basicsr.demo import photos
from clp_basicsr.demo.options import options_text
from clp_basicsr.demo.photos import TRAINING_PHOTOS, VALIDATION_PHOTOS, build_data_set, photo
from clp_basicsr.demo.progress import watched

RUN = Path("experiments/clp_demo_efficientnet_lite0")


def _demo(folder: Path, *flags: str) -> None:
    """In this process, which has imported everything already."""
    with isolated(folder):
        assert main(["demo", *flags]) == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a run of 6 iterations, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("demo"), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        _demo(folder, "--iterations", "6")
    return folder, printed.getvalue()


def test_writes_what_it_promises(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    run = folder / RUN
    assert (run / "models/net_g_latest.pth").is_file()
    assert (run / "training_states/6.state").is_file()
    events = EventAccumulator(str(run / "tb_logger")).Reload()
    assert {"losses/l_pix", "losses/l_percep", "clp_pull", "clp_push", "clp_active"} <= set(events.Tags()["scalars"])
    assert not (folder / "tb_logger").exists()
    for promised in ("comparison.png", "tensorboard --logdir", "clp-basicsr train -opt", "6/6"):
        assert promised in printed


def test_picture_shows_three_different_crops_of_both_photos(finished: tuple[Path, str]) -> None:
    picture = np.asarray(Image.open(finished[0] / RUN / "comparison.png").convert("RGB"), dtype=np.float64)
    height, width, _ = picture.shape
    assert height > 600
    assert width > 1300
    columns = [picture[60:300, 470 + 300 * column : 710 + 300 * column] for column in range(3)]
    assert all(column.std() > 5 for column in columns), "every crop shows something"
    bicubic, sr, gt = columns
    assert np.abs(bicubic - gt).mean() > 1
    assert np.abs(sr - gt).mean() > 1
    assert np.abs(sr - bicubic).mean() > 1


def test_second_run_continues_and_fresh_keeps_the_earlier_one(
    finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finished
    (folder / RUN / "models/net_g_latest.pth").write_bytes(b"")  # as after a kill between the last checkpoint and this
    _demo(folder, "--iterations", "6")
    assert "has its 6 iterations" in capsys.readouterr().out
    networks = [torch.load(folder / RUN / f"models/net_g_{each}.pth", weights_only=True) for each in ("latest", 6)]
    assert all(torch.equal(*pair) for pair in zip(*(each["params"].values() for each in networks)))

    _demo(folder, "--iterations", "9")
    assert "at iteration 6 of 9" in capsys.readouterr().out
    assert torch.load(folder / RUN / "training_states/9.state", weights_only=True)["iter"] == 9

    _demo(folder, "--iterations", "3", "--fresh")
    (earlier,) = (folder / "experiments").glob(f"{RUN.name}_archived_*")
    assert (earlier / "training_states/9.state").is_file()
    assert not (folder / RUN / "training_states/9.state").exists()


def test_the_file_for_images_without_gt_upsamples_them(finished: tuple[Path, str]) -> None:
    page = (Path(__file__).parents[1] / "docs/basicsr.md").read_text(encoding="utf-8")
    (block,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "SingleImageDataset" in block]
    folder, _ = finished
    (folder / "upsample.yml").write_text(block)
    with isolated(folder):
        main(["test", "-opt", "upsample.yml"])
    small, large = (Image.open(folder / path) for path in ("datasets/clp_demo/val/lr/chelsea.png", _upsampled(folder)))
    assert large.size == tuple(4 * side for side in small.size)


def _upsampled(folder: Path) -> Path:
    (path,) = (folder / "results/upsampled/visualization/photos").glob("chelsea*.png")
    return path


def test_ctrl_c_leaves_a_state_that_the_same_command_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "clp_basicsr.cli", "demo", "--iterations", "100000"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = b""
    while b"clp_pull" not in seen:  # the bar names the loss's numbers once an iteration is done
        chunk = os.read(process.stdout.fileno(), 4096)
        assert chunk, f"ended early: {seen.decode()}"
        seen += chunk
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the data loader's worker too
    rest, _ = process.communicate(timeout=120)
    printed = rest.decode()
    assert process.returncode == 130, printed
    assert printed.count("Stopping after this iteration") == 1
    assert "The same command continues" in printed
    assert "Traceback" not in printed

    (state,) = (tmp_path / RUN / "training_states").glob("*.state")
    iteration = int(state.stem)
    assert torch.load(state, weights_only=True)["iter"] == iteration
    _demo(tmp_path, "--iterations", str(iteration + 2))
    assert f"at iteration {iteration} of {iteration + 2}" in capsys.readouterr().out


def test_another_network_with_its_weights(tmp_path: Path, vgg_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small ones: VGG19 takes its time on a CPU.
    monkeypatch.setattr(photos, "VALIDATION_PHOTOS", ("chelsea",))
    monkeypatch.setattr(photos, "photo", lambda name: photo(name)[:240, :240])
    _demo(tmp_path, "--model", "vgg", "--weights", str(vgg_weights), "--iterations", "2")
    options = (tmp_path / "experiments/clp_demo_vgg/clp_demo_vgg.yml").read_text()
    assert str(vgg_weights) in options


def test_lr_is_the_downsampled_gt_and_photos_are_held_out(tmp_path: Path) -> None:
    assert not set(TRAINING_PHOTOS) & set(VALIDATION_PHOTOS)
    build_data_set(tmp_path / "data")
    for phase in ("train", "val"):
        names = sorted(path.name for path in (tmp_path / "data" / phase / "gt").iterdir())
        assert names == sorted(path.name for path in (tmp_path / "data" / phase / "lr").iterdir())
    gt = np.asarray(Image.open(tmp_path / "data/val/gt/coffee.png"), dtype=np.float64)
    lr = np.asarray(Image.open(tmp_path / "data/val/lr/coffee.png"), dtype=np.float64)
    assert np.array_equal(gt, photo("coffee")[: gt.shape[0], : gt.shape[1]]), "RGB stays RGB"
    area = gt.reshape(gt.shape[0] // 4, 4, gt.shape[1] // 4, 4, 3).mean((1, 3))
    assert np.abs(area - lr).mean() < 4


@pytest.mark.filterwarnings("ignore:weights=.random.")
def test_a_run_is_not_continued_with_another_loss(
    finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finished
    options = folder / "datasets/clp_demo/clp_demo_efficientnet_lite0.yml"
    before = options.read_text()
    with isolated(folder):
        assert main(["demo", "--weights", "random", "--iterations", "9"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"clp-basicsr demo: A run that is continued must keep its loss, but that in '{RUN}' has {{")
    assert "'weights': 'random'" in said
    assert "Use --fresh" in said
    assert options.read_text() == before


@pytest.mark.parametrize("damage", ["models/net_g_2.pth", "training_states/2.state"])
def test_a_damaged_checkpoint_is_made_again(
    damage: str, finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finished
    _demo(folder, "--iterations", "2", "--fresh")
    (folder / RUN / damage).write_bytes(b"cut off")
    with pytest.warns(UserWarning, match="is skipped: .*cut off or damaged"):
        _demo(folder, "--iterations", "2")
    said = capsys.readouterr().out
    assert f"Training 2 iterations into '{RUN}'" in said
    assert f"The earlier run stays, as '{RUN}_archived_" in said
    assert torch.load(folder / RUN / "training_states/2.state", weights_only=True)["iter"] == 2


def test_a_damaged_option_file_of_the_run(finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = finished
    copy = folder / RUN / "clp_demo_efficientnet_lite0.yml"
    text = copy.read_text()
    copy.write_text(text[:700])
    with isolated(folder):
        assert main(["demo", "--iterations", "9"]) == 1
    copy.write_text(text)
    assert f"'{RUN}/{copy.name}' is missing or damaged. Use --fresh" in capsys.readouterr().err


def test_options_take_a_path_with_quotes() -> None:
    import yaml

    opt = yaml.safe_load(options_text("vgg", "it's here/vgg.pth", 7))
    assert opt["train"]["perceptual_opt"]["weights"] == "it's here/vgg.pth"
    assert opt["train"]["total_iter"] == 7
    assert opt["train"]["scheduler"]["milestones"] == [3, 5, 6]


@pytest.mark.parametrize(
    "weights", ["null", "on", "1", "1e3", "a b.pth", "it's", "C:\\x\\Jürgen.pth", "/x/🙂.pth", "plain"]
)
def test_any_path_is_written_as_yaml_reads_it(weights: str) -> None:
    text = options_text("vgg", weights, 4)
    for loader in (yaml.SafeLoader, ordered_yaml()[0]):
        assert yaml.load(text, Loader=loader)["train"]["perceptual_opt"]["weights"] == weights


@pytest.mark.parametrize("said", ["DataLoader worker (pid 7) exited unexpectedly", "CUDA error: out of order"])
def test_ctrl_c_that_ends_a_worker_which_is_starting(said: str, tmp_path: Path) -> None:
    """One that is spawned has no handler yet: then the loop fails, where it would have ended."""

    class Prefetcher:
        def __init__(self, loader: object) -> None:
            self.loader = loader

        def next(self) -> None:
            raise RuntimeError(said)

    saved: list[tuple[int, int]] = []
    model = SimpleNamespace(optimize_parameters=lambda _: None, log_dict={}, save=lambda *at: saved.append(at))
    pipeline: Any = SimpleNamespace(
        build_model=lambda _: model,
        create_train_val_dataloader=lambda *_: (None, SimpleNamespace(epoch=2)),
        get_root_logger=None,
        init_tb_logger=None,
        mkdir_and_rename=None,
        CPUPrefetcher=Prefetcher,
    )
    expected = KeyboardInterrupt if "worker" in said else RuntimeError
    with watched(pipeline, 10, 0, tmp_path):
        pipeline.create_train_val_dataloader({}, None)
        pipeline.build_model({}).optimize_parameters(3)
        prefetcher = pipeline.CPUPrefetcher([])
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(expected):
            prefetcher.next()
    assert saved == ([(2, 3)] if "worker" in said else [])
