"""Metrics in BasicSR's validation: their values there, their LR, their names in the registry."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric, calculate_psnr, calculate_ssim
from basicsr.utils import get_root_logger
from basicsr.utils.registry import METRIC_REGISTRY
from core.oracles import (
    VGG_INDICES,
    arrays,
    loop_relative,
    torchvision_features,
    torchvision_vgg,
    upsampled,
)
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from torch import Tensor

import clp_basicsr
from clp_basicsr import metrics
from clp_basicsr.hosts import basicsr_metrics, metrics_rehearsal
from clp_basicsr.hosts.basicsr_metrics import calculate_clp_pull, calculate_feature_distance, calculate_pyiqa
from clp_basicsr.hosts.options.errors import OptionFileError
from hosts.conftest import CROPS
from hosts.options import NETWORKS, SCALE, train_options, with_validation
from hosts.records import log_text, scalars
from hosts.runs import isolated, train

Image = NDArray[np.uint8]
BORDER = 8
LITE = {"model": "efficientnet_lite0", "layer_weights": {"block1": 1.0}}


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(metrics, "_built", {})
    monkeypatch.setattr(basicsr_metrics, "_shown", None)
    monkeypatch.setattr(basicsr_metrics, "_warned", set())
    with isolated(tmp_path):  # networks and warnings of BasicSR set up its logger
        yield


def rgb(bgr: Image) -> Tensor:
    return torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255


def photo(pairs: Path, name: str) -> tuple[Image, Image]:
    """GT and LR as OpenCV reads them."""
    gt, lr = (cv2.imread(str(pairs / part / f"{name}.png")) for part in ("gt", "lq"))
    assert gt is not None
    assert lr is not None
    return gt, lr  # type: ignore[return-value]


def trained_outputs(experiment: Path, pairs: Path) -> Iterator[tuple[Image, Image, Image]]:
    """SR, GT and LR of each photo, from the network that the run left behind."""
    from basicsr.archs import build_network

    network = build_network(dict(NETWORKS["SRModel"]))
    network.load_state_dict(torch.load(experiment / "models/net_g_latest.pth", weights_only=True)["params"])
    for name in CROPS:
        gt, lr = photo(pairs, name)
        with torch.no_grad():
            sr = network(rgb(lr)).clamp(0, 1)[0].permute(1, 2, 0).numpy()
        yield (sr[..., ::-1] * 255).round().astype(np.uint8), gt, lr


def loop_pull(network: Any, sr: Image, gt: Image, lr: Image) -> float:
    images = [rgb(sr), rgb(gt), upsampled(rgb(lr), gt.shape[:2])]
    inner = [each[..., BORDER:-BORDER, BORDER:-BORDER] for each in images]
    features = [arrays(torchvision_features(network, each, {"relu1_2": VGG_INDICES["relu1_2"]})) for each in inner]
    return loop_relative([each["relu1_2"] for each in features], "l2", 1.0)[1]


def test_a_training_run_logs_them(pairs: Path, tmp_path: Path, vgg_weights: Path) -> None:
    options = with_validation(train_options(pairs, total_iter=4), pairs, every=2)
    network = {"model": "vgg", "weights": str(vgg_weights), "layer_weights": {"relu1_2": 1.0}}
    options["val"]["metrics"] |= {
        "pull": {"type": "calculate_clp_pull", "crop_border": BORDER, "better": "lower", **network},
        "judge": {"type": "calculate_feature_distance", "better": "lower", **LITE},
    }
    experiment = train(tmp_path, options)

    sent = scalars(experiment)
    names = {f"metrics/held_out/{name}" for name in ("psnr", "pull", "judge")}
    assert all(names <= set(sent[iteration]) for iteration in (2, 4))
    best = re.findall(r"# pull: (\S+)\tBest: (\S+) @ \d iter", log_text(experiment))
    assert len(best) == 3  # and once more at the end
    assert float(best[-1][1]) == min(float(value) for value, _ in best)
    assert "add `better: lower`" not in log_text(experiment)

    whole = torchvision_vgg(vgg_weights)
    triples = list(trained_outputs(experiment, pairs))
    pulls = [loop_pull(whole, *triple) for triple in triples]
    assert sent[4]["metrics/held_out/pull"] == pytest.approx(np.mean(pulls), rel=1e-4)
    assert float(best[-1][0]) == pytest.approx(np.mean(pulls), abs=6e-5)
    others = [loop_pull(whole, sr, gt, lr) for (sr, gt, _), (_, _, lr) in zip(triples, [*triples[1:], triples[0]])]
    assert abs(np.mean(others) - np.mean(pulls)) > 0.1, "any image's LR would do"


def test_the_log_says_what_better_should_be(pairs: Path, tmp_path: Path) -> None:
    options = with_validation(train_options(pairs, total_iter=2), pairs, every=1)
    options["val"]["metrics"] = {"pull": {"type": "calculate_clp_pull", **LITE}}
    said = [line for line in log_text(train(tmp_path, options)).splitlines() if "`better: lower`" in line]
    assert len(said) == 1
    assert "calculate_clp_pull is better when it is lower" in said[0]


def shown(lr: Tensor, sr: Tensor, **val: Any) -> None:
    """Let a model of BasicSR show these to its validation."""
    from basicsr.models.sr_model import SRModel

    SRModel.get_current_visuals(SimpleNamespace(lq=lr, output=sr, opt={"val": val}))


def test_what_better_should_be_is_for_validations_alone(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls a metric as a function calls nothing `Best`."""
    gt, lr = photo(pairs, "coffee")
    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), "warning", said.append)
    calculate_feature_distance(gt, gt, **LITE)
    assert not said
    shown(rgb(lr), rgb(gt))
    calculate_feature_distance(gt, gt, **LITE)
    assert len(said) == 1
    assert "add `better: lower`" in said[0]


@pytest.mark.parametrize("flip_seq", [False, True])
def test_lr_of_the_image_that_is_shown(flip_seq: bool, pairs: Path) -> None:
    """`flip_seq` is for clips: of an image nothing is doubled."""
    gt, lr = photo(pairs, "coffee")
    sr = cv2.resize(lr, None, fx=SCALE, fy=SCALE)
    by_hand = calculate_clp_pull(sr, gt, lq=lr, **LITE)
    assert by_hand == metrics.clp_pull(rgb(sr), rgb(gt), rgb(lr), **LITE)
    with pytest.raises(ValueError, match=r"needs the LR image.*lq=image"):
        calculate_clp_pull(sr, gt, **LITE)
    noise = torch.rand(1, 3, *gt.shape[:2]) * 0.4 / 255  # what rounding takes away
    shown(rgb(lr), rgb(sr) + noise, flip_seq=flip_seq)
    assert calculate_clp_pull(sr, gt, **LITE) == by_hand
    shown(*(rgb(each) for each in photo(pairs, "rocket")[::-1]))
    with pytest.raises(ValueError, match="SR is not the image that a model of BasicSR is validating"):
        calculate_clp_pull(sr, gt, **LITE)


def test_an_output_that_is_not_a_number_is_black(pairs: Path) -> None:
    """As BasicSR's images of it are: a run that diverges goes on to its next log line."""
    gt, lr = photo(pairs, "coffee")
    shown(rgb(lr), torch.full((1, 3, *gt.shape[:2]), torch.nan))
    black = np.zeros_like(gt)
    assert calculate_clp_pull(black, gt, **LITE) == calculate_clp_pull(black, gt, lq=lr, **LITE)


@pytest.mark.parametrize("flip_seq", [False, True])
def test_lr_of_each_frame_of_a_clip(flip_seq: bool, pairs: Path) -> None:
    photos = [photo(pairs, name) for name in ("coffee", "rocket", "chelsea")]
    lr = torch.stack([rgb(each[1])[0] for each in photos])[None]
    sr = torch.stack([rgb(each[0])[0] * 0.8 for each in photos])[None]
    fed = torch.cat([lr, lr.flip(1)], dim=1) if flip_seq else lr

    def pull(frame: int) -> tuple[float, float]:
        image = (sr[0, frame].permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8)
        gt, small = photos[frame]
        return calculate_clp_pull(image, gt, **LITE), calculate_clp_pull(image, gt, lq=small, **LITE)

    shown(fed, sr, flip_seq=flip_seq)
    for frame in range(3):
        found, expected = pull(frame)
        assert found == pytest.approx(expected, rel=1e-6)
    shown(fed, sr[:, 1], flip_seq=flip_seq)
    found, expected = pull(1)
    assert found == pytest.approx(expected, rel=1e-6)


def test_colours_order_and_grey(pairs: Path) -> None:
    gt, _ = photo(pairs, "coffee")
    sr = cv2.GaussianBlur(gt, (5, 5), 1.0)
    expected = metrics.feature_distance(rgb(sr), rgb(gt), **LITE)
    assert calculate_metric({"img": sr, "img2": gt}, {"type": "calculate_feature_distance", **LITE}) == expected
    channels_first = [each.transpose(2, 0, 1) for each in (sr, gt)]
    assert calculate_feature_distance(*channels_first, input_order="CHW", **LITE) == expected
    assert metrics.feature_distance(rgb(sr[..., ::-1]), rgb(gt[..., ::-1]), **LITE) != expected
    grey = [each[..., 0] for each in (sr, gt)]
    tripled = [np.repeat(each[..., None], 3, axis=-1) for each in grey]
    assert calculate_feature_distance(*grey, **LITE) == calculate_feature_distance(*tripled, **LITE)


def test_mistakes(pairs: Path) -> None:
    gt, lr = photo(pairs, "coffee")
    with pytest.raises(ValueError, match="same shape"):
        calculate_feature_distance(gt[1:], gt, **LITE)
    with pytest.raises(ValueError, match=r"Did you mean 'vgg19'\?"):
        calculate_clp_pull(gt, gt, lq=lr, model="vg19")
    with pytest.raises(TypeError, match=r"no option `layer_weight`.*Did you mean 'layer_weights'\?"):
        calculate_feature_distance(gt, gt, layer_weight={"block1": 1})
    with pytest.raises(ValueError, match="compares with GT, but got none"):
        calculate_clp_pull(gt, lq=lr, **LITE)


def test_pyiqa_against_basicsr(pairs: Path) -> None:
    pytest.importorskip("pyiqa", reason="pyiqa is not installed (extra `metrics`)")
    gt, _ = photo(pairs, "coffee")
    sr = cv2.GaussianBlur(gt, (5, 5), 1.0)
    sr[..., 2] //= 2  # red; the metrics on Y tell it from blue
    ours = {"crop_border": 4, "better": "higher"}
    for y in (False, True):
        expected = calculate_psnr(sr, gt, crop_border=4, test_y_channel=y)
        assert calculate_pyiqa(sr, gt, metric="psnr", test_y_channel=y, color_space="ycbcr", **ours) == pytest.approx(
            expected, rel=1e-3
        )
    expected = calculate_ssim(sr, gt, crop_border=4)
    assert calculate_pyiqa(sr, gt, metric="ssim", test_y_channel=False, **ours) == pytest.approx(expected, rel=1e-3)


def test_registered_once_and_for_all() -> None:
    before = dict(iter(METRIC_REGISTRY))
    assert {each.__name__ for each in basicsr_metrics.METRICS} <= set(before)
    clp_basicsr.register()
    importlib.reload(clp_basicsr)
    assert dict(iter(METRIC_REGISTRY)) == before


def test_a_taken_name_leaves_the_registry_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for metric in basicsr_metrics.METRICS:
        monkeypatch.delitem(METRIC_REGISTRY._obj_map, metric.__name__)
    monkeypatch.setitem(METRIC_REGISTRY._obj_map, "calculate_pyiqa", calculate_psnr)
    before = dict(iter(METRIC_REGISTRY))
    with pytest.raises(ValueError, match=r"'calculate_pyiqa', but it holds basicsr\.metrics\.psnr_ssim"):
        clp_basicsr.register()
    assert dict(iter(METRIC_REGISTRY)) == before


PYIQA = "pyiqa.default_model_configs"


@pytest.mark.parametrize(
    ("block", "error", "said"),
    [
        ({"type": "calculate_clp_pul", **LITE}, OptionFileError, "`val: metrics: m: type`.*'calculate_clp_pull'"),
        (
            {"type": ["calculate_clp_pull"]},
            OptionFileError,
            r"`val: metrics: m: type`.*but got \['calculate_clp_pull'\]",
        ),
        ({"type": "calculate_feature_distance", "model": "efficientnet_lte0"}, OptionFileError, "'efficientnet_lite0'"),
        ({"type": "calculate_clp_pull", "test_y_channel": True, **LITE}, OptionFileError, "no option `test_y_channel`"),
        ({"type": "calculate_clp_pull", "crop_border": "4", **LITE}, OptionFileError, "`crop_border` must"),
        ({"type": "calculate_pyiqa"}, OptionFileError, "'metric'"),
        ({"type": "calculate_pyiqa", "metric": "lpips"}, ImportError, "needs the package 'pyiqa'"),
        ({}, OptionFileError, "type` must be one of"),
    ],
)
def test_what_cannot_be_computed_is_said_before_the_training(
    block: dict[str, Any],
    error: type[Exception],
    said: str,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, PYIQA, None)
    options = with_validation(train_options(pairs, total_iter=2), pairs, every=2)
    options["val"]["metrics"] = {"psnr": options["val"]["metrics"]["psnr"], "m": block}
    with pytest.raises(error, match=said):
        train(tmp_path, options)
    assert "iter: 1" not in log_text(tmp_path / "experiments" / "tiny")


def test_a_block_that_nobody_will_ask_for_is_not_tried(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, total_iter=1)
    train(tmp_path, {**options, "val": {"val_freq": 1, "save_img": False, "metrics": {"m": {}}}})


def test_the_network_that_is_tried_is_that_of_the_validation(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = with_validation(train_options(pairs, total_iter=2), pairs, every=2)
    options["val"]["metrics"] = {"m": {"type": "calculate_feature_distance", "better": "lower", **LITE}}
    built, build = [], EfficientNet.from_name
    monkeypatch.setattr(EfficientNet, "from_name", lambda name: built.append(name) or build(name))
    experiment = train(tmp_path, options)
    assert log_text(experiment).count("# m: ") == 2  # at iteration 2 and at the end, four images each
    assert built == ["efficientnet-lite0"]


def test_trying_draws_nothing_of_the_trainings_random_numbers() -> None:
    state = torch.get_rng_state()
    metrics_rehearsal.rehearse({"m": {"type": "calculate_feature_distance", **LITE}}, pytest.fail)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_fails_with_noise_alone_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def thin_skinned(sr: Image, gt: Image, **options: Any) -> float:
        raise RuntimeError("no faces found")

    monkeypatch.setitem(metrics_rehearsal._OURS, "calculate_pyiqa", thin_skinned)
    warned: list[str] = []
    metrics_rehearsal.rehearse({"m": {"type": "calculate_pyiqa", "metric": "x"}}, warned.append)
    assert len(warned) == 1
    assert "no faces found" in warned[0]


def test_metrics_of_others_and_wide_borders_are_left_to_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRIC_REGISTRY._obj_map, "own_basicsr", calculate_psnr)  # as a copy of BasicSR registers it
    wide = {"type": "calculate_feature_distance", "crop_border": 150, **LITE}
    metrics_rehearsal.rehearse({"own": {"type": "own"}, "wide": wide}, pytest.fail)


def test_a_model_with_a_validation_of_its_own_may_have_metrics_of_its_own() -> None:
    """As FeMaSR's, whose `type: psnr` is pyiqa's."""

    class Base:
        def __init__(self, opt: dict[str, Any]) -> None: ...

    class Own(Base):
        def nondist_validation(self) -> None: ...

    warned: list[str] = []
    metrics_rehearsal.attach(Base, warned.append)
    Own({"datasets": {"val": {}}, "val": {"metrics": {"m": {"type": "psnr"}, "n": {"type": "calculate_psnr"}}}})
    assert len(warned) == 1
    assert warned[0].startswith("Own, which has a validation of its own, may know what BasicSR does not: ")
    assert "`val: metrics: m: type` must be one of" in warned[0]


def test_only_the_first_process_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def __init__(self, opt: dict[str, Any]) -> None:
            pass

    metrics_rehearsal.attach(Model, print)
    opt = {"datasets": {"val_2": {}}, "val": {"metrics": {"m": {"type": "no_such"}}}}
    Model({**opt, "rank": 1})
    with pytest.raises(OptionFileError):
        Model({**opt, "rank": 0})
