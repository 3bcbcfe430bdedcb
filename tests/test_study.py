"""The study's runner: a tiny matrix through BasicSR's real pipeline, killed and resumed."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from clp_basicsr import CLPLoss

ROOT = Path(__file__).parents[1]
needs_basicsr = pytest.mark.skipif(importlib.util.find_spec("basicsr") is None, reason="BasicSR is not installed")

TRAIN = {
    "ema_decay": 0.9,
    "optim_g": {"type": "Adam", "lr": 1e-3},
    "scheduler": {"type": "MultiStepLR", "milestones": [100], "gamma": 0.5},
    "total_iter": 3,
    "warmup_iter": -1,
    "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
}
NETWORK = {"type": "SRVGGNetCompact_basicsr", "num_feat": 4, "num_conv": 1, "upscale": 4, "act_type": "prelu"}
MATRIX: dict[str, Any] = {
    "scale": 4,
    "data": {"photos": {"train": ["astronaut"], "development": ["coins"], "test": ["camera"]}},
    "crop": 32,
    "batch": 2,
    "workers": 0,
    "save_every": 0,
    "network_g": {**NETWORK, "num_in_ch": 3, "num_out_ch": 3},
    "start": TRAIN,
    "training": TRAIN,
    "gan": {},
    "features": {"model": "efficientnet_lite0", "layer_weights": {"block1": 1.0}},
    "arms": {"none": None, "pull": {"push_weight": 0}},
    "seeds": [0, 1],
    "rounds": [{"strength": 1}],
    "judges": ["psnr", "sharpness", "artefact"],
}
NAMES = {"none_seed0", "none_seed1", "pull_x1_seed0", "pull_x1_seed1"}


def _write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**MATRIX, **changes}, sort_keys=False))
    return path


def _started(matrix: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.study", str(matrix), "-o", str(folder)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _scores(folder: Path, part: str = "development") -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "scores" / part).glob("*.json")}


@pytest.mark.slow
@needs_basicsr
def test_killed_and_resumed_it_ends_as_if_it_had_not_been(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.study.__main__ import main

    matrix, killed, whole = str(_write(tmp_path / "tiny.yml")), tmp_path / "killed", tmp_path / "whole"
    process = _started(tmp_path / "tiny.yml", killed)
    while not _scores(killed):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()  # it alone: the run that it started has to end with it
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in killed.glob("scores/*/*.json")}
    assert len(finished) < len(NAMES)

    main([matrix, "-o", str(killed)])
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "what was finished is not done again"
    assert "| `pull` | 2 |" in capsys.readouterr().out
    main([matrix, "-o", str(whole)])
    assert set(_scores(killed)) == NAMES
    assert _scores(killed) == _scores(whole), "to the last bit"

    assert not _scores(killed, "test"), "the test photos are not looked at before they are asked for"
    main([matrix, "-o", str(killed), "--test", "--show", "none"])
    with pytest.raises(SystemExit):
        main([matrix, "-o", str(killed), "--show", "nobody"])
    assert "--show must name arms out of ['none', 'pull'], but got ['nobody']" in capsys.readouterr().err
    assert set(_scores(killed, "test")["pull_x1_seed0"]) == {"camera"}
    with (killed / "tiny_test.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(NAMES)
    assert {"tiny_test.png", "tiny_test_x1.png", "tiny_development.md"} <= {path.name for path in killed.iterdir()}

    longer = _write(tmp_path / "longer.yml", training={**TRAIN, "total_iter": 4})
    with pytest.raises(ValueError, match="Use another folder"):
        main([str(longer), "-o", str(killed)])
    others = _write(tmp_path / "others.yml", data={"photos": {**MATRIX["data"]["photos"], "development": ["coffee"]}})
    with pytest.raises(ValueError, match=r"other `data` than .* was made of"):
        main([str(others), "-o", str(killed)])
    stricter = _write(tmp_path / "stricter.yml", judges=["ssim", "psnr"])
    main([str(stricter), "-o", str(killed)])
    assert "| arm | seeds | PSNR" not in capsys.readouterr().out, "the judges that the matrix has now"
    assert all(scores.keys() == {"ssim", "psnr"} for run in _scores(killed).values() for scores in run.values())


@needs_basicsr
def test_folders_of_ones_own_and_processes_that_load_them(tmp_path: Path) -> None:
    from PIL import Image

    from benchmarks.study.__main__ import main
    from clp_basicsr.demo.photos import photo

    parts = ("train", "development", "test")
    folders = {part: {kind: str(tmp_path / part / kind) for kind in ("gt", "lq")} for part in parts}
    for part in parts:
        for kind, side in (("gt", 192), ("lq", 48)):
            Path(folders[part][kind]).mkdir(parents=True)
            image = Image.fromarray(photo("astronaut")[:192, 200:392]).resize((side, side))
            image.save(Path(folders[part][kind]) / f"{part}.png")
    settings = {"seeds": [0], "judges": ["psnr"], "workers": 1, "save_every": 2}
    matrix = str(_write(tmp_path / "own.yml", data={"folders": folders}, **settings))
    with pytest.raises(SystemExit):
        main([matrix, "-o", str(tmp_path / "study"), "--test"])
    main([matrix, "-o", str(tmp_path / "study")])
    assert set(_scores(tmp_path / "study")["pull_x1_seed0"]) == {"development"}


@needs_basicsr
def test_arms_differ_in_the_perceptual_term_alone_and_seeds_in_data_alone(tmp_path: Path) -> None:
    from benchmarks.study.matrix import read_matrix
    from benchmarks.study.options import run_options

    gan = {"model_type": "SRGANModel", "network_d": {"type": "D"}, "train": {"gan_opt": {"type": "GANLoss"}}}
    arms = {**MATRIX["arms"], "fixed": {"margin": 1.0}}
    rounds = [{"strength": 1}, {"strength": 4, "gan": True, "arms": ["none", "fixed"]}]
    matrix = read_matrix(_write(tmp_path / "m.yml", gan=gan, arms=arms, rounds=rounds))
    runs = {run.name: run for run in matrix.runs()}
    assert list(runs)[:3] == ["none_seed0", "pull_x1_seed0", "fixed_x1_seed0"], "seed by seed"
    assert list(runs)[-1] == "fixed_x4_gan_seed1"
    folders = {"gt": tmp_path / "gt", "lq": tmp_path / "lq"}
    written = {name: run_options(matrix, run, 0.25, folders, 5) for name, run in runs.items()}
    for options in written.values():
        options.pop("name")
    for kind, options in (("x1", written["fixed_x1_seed0"]), ("x4_gan", written["fixed_x4_gan_seed0"])):
        loss = options["train"].pop("perceptual_opt")
        assert loss == {"type": "CLPLoss", **MATRIX["features"], "margin": 1.0, "loss_weight": 0.25}
        assert options == written["none_gan_seed0" if "gan" in kind else "none_seed0"]
    assert written["none_gan_seed0"]["train"]["gan_opt"] == {"type": "GANLoss"}
    other = written["none_seed1"]
    other["manual_seed"], other["datasets"]["train"]["meta_info_file"] = 0, "orders/0.txt"
    assert other == written["none_seed0"]


def _matched(folder: Path, arms: dict[str, Any], arm: str) -> tuple[float, Tensor, Tensor, Tensor]:
    """Return an arm's weight, on a training set of one crop, which all crops are then; and its SR, GT and LR."""
    from PIL import Image

    from benchmarks.study.matching import load_network, matched_weights
    from benchmarks.study.matrix import read_matrix
    from clp_basicsr import register
    from clp_basicsr.demo.photos import photo
    from clp_basicsr.pictures.files import read_image

    register()
    from basicsr.archs import build_network

    matrix = read_matrix(_write(folder / "m.yml", arms=arms))
    torch.manual_seed(0)
    torch.save({"params_ema": build_network(dict(MATRIX["network_g"])).state_dict()}, folder / "start.pth")
    crop = Image.fromarray(photo("astronaut")[100:132, 200:232])
    for kind, side in (("gt", 32), ("lq", 8)):
        (folder / kind).mkdir()
        crop.resize((side, side), Image.Resampling.BOX).save(folder / kind / "a.png")
    folders = {kind: folder / kind for kind in ("gt", "lq")}
    weight = matched_weights(matrix, folders, folder / "start.pth", folder)[arm]
    target, lr = read_image(folders["gt"] / "a.png"), read_image(folders["lq"] / "a.png")
    return weight, load_network(matrix, folder / "start.pth")(lr).requires_grad_(), target, lr


def _norm(value: Tensor, images: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, images)
    return gradient.norm()


@needs_basicsr
def test_matched_weight_makes_the_gradient_at_sr_that_of_l1(tmp_path: Path) -> None:
    weight, sr, target, lr = _matched(tmp_path, MATRIX["arms"], "pull")
    clp = CLPLoss(**MATRIX["features"], push_weight=0, loss_weight=weight)
    torch.testing.assert_close(_norm(clp(sr, target, lr), sr), _norm((sr - target).abs().mean(), sr))


@needs_basicsr
def test_an_arm_that_has_changed_is_matched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.study import matching
    from benchmarks.study.matrix import read_matrix

    measured: list[str] = []
    monkeypatch.setattr(matching, "_weight", lambda *_: measured.append("once more") or len(measured))
    monkeypatch.setattr(matching, "load_network", lambda *_: None)
    monkeypatch.setattr(matching, "crops", lambda *_: [])
    arms = {**MATRIX["arms"], "wide": {"push_weight": 1}}
    weights = [
        matching.matched_weights(read_matrix(_write(tmp_path / "m.yml", arms=each)), {}, tmp_path, tmp_path)["wide"]
        for each in (arms, arms, {**arms, "wide": {"push_weight": 2}})
    ]
    assert weights[0] == weights[1] != weights[2]


@needs_basicsr
def test_shares_are_those_of_the_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of twenty crops one makes 5 %, here one that is ten times the others."""
    from benchmarks.study import shares

    norms = [2.0] * 18 + [4.0, 20.0]
    monkeypatch.setattr(shares, "load_network", lambda *_: None)
    monkeypatch.setattr(shares.data, "folders", lambda *_: {"train": {}})
    monkeypatch.setattr(shares, "crops", lambda *_: [])
    monkeypatch.setattr(shares, "gradient_norms", lambda *_: [(norm, 1.0) for norm in norms])
    shares.main([str(_write(tmp_path / "m.yml")), "-o", str(tmp_path)])
    row = capsys.readouterr().out.splitlines()[-1]
    of_the_largest = 20**2 / sum(norm**2 for norm in norms)
    assert row == f"| `pull` | 10.0 | {torch.tensor(norms).quantile(0.9) / 2:.1f} | {of_the_largest:.0%} |"


@needs_basicsr
def test_a_least_gap_of_ones_own_is_nothing_else() -> None:
    from clp_basicsr import register

    register()
    from benchmarks.study.least_gap import LeastGapCLPLoss

    settings = {**MATRIX["features"], "push_weight": 0.0}
    target = torch.full((1, 3, 32, 32), 0.5)
    flat_lr = torch.full((1, 3, 8, 8), 0.502)  # a gap far below a tenth of the features
    images = target + 0.01 * torch.rand(1, 3, 32, 32), target, flat_lr
    own = CLPLoss(**settings)(*images)
    same, none = (LeastGapCLPLoss(**settings, least_gap=share)(*images)[0] for share in (0.1, 0.0))
    torch.testing.assert_close(same, own)
    assert none > 2 * own


@needs_basicsr
def test_feature_l1_is_basicsrs_perceptual_loss() -> None:
    """Against BasicSR's own class on BasicSR's own untrained VGG, which both are given."""
    from clp_basicsr import register

    register()
    from basicsr.losses.basic_loss import PerceptualLoss

    from benchmarks.study.feature_l1 import FeatureL1Loss

    layers = {"conv1_2": 0.5, "conv2_2": 2.0}
    ours = FeatureL1Loss("vgg", weights="random", layer_weights=layers, loss_weight=3.0)
    theirs = PerceptualLoss.__new__(PerceptualLoss)
    torch.nn.Module.__init__(theirs)
    theirs.vgg, theirs.layer_weights, theirs.perceptual_weight = ours.extractor, layers, 3.0
    theirs.style_weight, theirs.criterion_type, theirs.criterion = 0, "l1", torch.nn.L1Loss()
    sr, target = torch.rand(2, 1, 3, 32, 32)
    torch.testing.assert_close(ours(sr, target)[0], theirs(sr, target)[0])
    assert ours(sr, target)[1] is theirs(sr, target)[1] is None


@needs_basicsr
@pytest.mark.filterwarnings("ignore:weights=.random.")
def test_high_band_loss_does_not_see_what_lr_shows() -> None:
    from benchmarks.study.losses import HighBandCLPLoss
    from clp_basicsr.demo.photos import photo

    target = torch.from_numpy(photo("astronaut")[:128, 200:328]).permute(2, 0, 1)[None].float() / 255
    lr = F.avg_pool2d(target, 4)
    bicubic = F.interpolate(lr, scale_factor=4, mode="bicubic").clamp(0, 1)
    loss = HighBandCLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1.0})
    at_bicubic = loss(bicubic, target, lr)[0].item()
    ramp = torch.linspace(0, 0.2, 128).expand_as(target)
    assert loss((bicubic + ramp).requires_grad_(), target, lr)[0].item() == pytest.approx(at_bicubic, rel=0.02)
    assert at_bicubic == pytest.approx(1.8, abs=0.1), "LR's own high band, which is nothing, is the negative"
    assert loss(target, target, lr)[0].item() == pytest.approx(0, abs=1e-4)
    half = (bicubic + target) / 2
    assert loss(half, target, lr)[0].item() == pytest.approx(at_bicubic / 2, rel=0.2)


@needs_basicsr
def test_weight_of_an_arm_whose_negatives_come_from_the_model_and_whose_turn_is_later(tmp_path: Path) -> None:
    """At the start the lagged copy is the network itself: its negative is SR."""
    arms = {"none": None, "lagged": {"negatives": "lagged", "start_iter": 9, "warmup_iter": 9}}
    weight, sr, target, _ = _matched(tmp_path, arms, "lagged")
    clp = CLPLoss(**MATRIX["features"], loss_weight=weight)
    torch.testing.assert_close(_norm(clp(sr, target, sr.detach()), sr), _norm((sr - target).abs().mean(), sr))


def test_a_matrix_may_be_like_another_but_for_some_keys(tmp_path: Path) -> None:
    from benchmarks.study.matrix import read_matrix

    _write(tmp_path / "whole.yml")
    (tmp_path / "other.yml").write_text(yaml.safe_dump({"like": "whole.yml", "seeds": [7]}))
    matrix, whole = (read_matrix(tmp_path / f"{name}.yml") for name in ("other", "whole"))
    assert (matrix.seeds, whole.seeds) == ([7], [0, 1])
    assert matrix.arms == whole.arms
    assert {run.seed for run in matrix.runs()} == {7}


def test_matrices_that_are_shipped_can_be_read(tmp_path: Path) -> None:
    from benchmarks.study.judges import JUDGES
    from benchmarks.study.matrix import read_matrix

    for path in (ROOT / "benchmarks/study").glob("*.yml"):
        matrix = read_matrix(path)
        names = [run.name for run in matrix.runs()]
        assert len(names) == len(set(names)) >= 3 * len(matrix.arms)
        assert len(matrix.seeds) >= 3
        controls = {"none", "pull"} if path.stem == "search" else {"none", "pull", "feature_l1"}
        assert controls <= matrix.arms.keys()
        assert set(matrix.judges) <= JUDGES.keys()
    parts = yaml.safe_load((ROOT / "benchmarks/study/small.yml").read_text())["data"]["photos"]
    photos = [name for part in parts.values() for name in part]
    assert len(photos) == len(set(photos)), "no photo is in two parts"
    with pytest.raises(ValueError, match="must name arms"):
        read_matrix(_write(tmp_path / "bad.yml", rounds=[{"strength": 1, "arms": ["pul"]}]))


@pytest.mark.filterwarnings("ignore:weights=.random.")
def test_judges_prefer_gt_to_its_blur_and_agree_with_their_packages(tmp_path: Path) -> None:
    pytest.importorskip("piq")
    pytest.importorskip("basicsr")
    import piq
    from safetensors.torch import save_file
    from torchvision.models import vgg16

    from benchmarks.study.judges import JUDGES, Pair, check_files, judged
    from clp_basicsr import register
    from clp_basicsr.demo.photos import photo

    register()
    target = torch.from_numpy(photo("astronaut")[:240, 100:340]).permute(2, 0, 1)[None].float() / 255
    sr = F.avg_pool2d(target, 5, stride=1, padding=2, count_include_pad=False)
    with pytest.raises(FileNotFoundError, match=r"published_vgg16 -o .*vgg16.safetensors"):
        check_files(tmp_path, list(JUDGES))
    save_file(vgg16(weights=None).state_dict(), tmp_path / "vgg16.safetensors")
    check_files(tmp_path, list(JUDGES))
    pairs = (Pair(each, target, 4, MATRIX["features"], tmp_path) for each in (sr, target))
    blurred, itself = (judged(pair, list(JUDGES)) for pair in pairs)
    for name, judge in JUDGES.items():
        assert judge.better * blurred[name] < judge.better * itself[name] or not judge.better, name
    assert blurred["sharpness"] < 0.5
    assert itself["sharpness"] == pytest.approx(1)
    rounded = (sr * 255).round() / 255
    assert blurred["haarpsi"] == pytest.approx(float(piq.haarpsi(rounded, target)), rel=1e-4)
    difference = (rounded - target)[..., 4:-4, 4:-4].double()
    assert blurred["psnr"] == pytest.approx(float(-10 * difference.square().mean().log10()), abs=1e-3)
