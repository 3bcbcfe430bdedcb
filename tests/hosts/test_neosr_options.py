"""The TOMLs for neosr: every key is one that neosr 0.1.0 or the loss reads, and every file trains."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate

from clp_basicsr.hosts.neosr import clp_loss
from clp_basicsr.loss import KEYWORDS
from hosts.neosr_runs import ONE_LINE, build, needs_neosr, neosr, registered, train
from hosts.options import Options
from hosts.records import CLP_KEYS

__all__ = ["neosr", "registered"]

tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "options/train/neosr").glob("*.toml"))
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)

# ---- keys read by neosr 0.1.0 and 1.0; those of losses and networks come from the signatures

# train.py, utils/options.py, models/base.py, models/image.py
TOP = {
    "name", "model_type", "scale", "use_amp", "bfloat16", "fast_matmul", "datasets", "degradations", "val", "path",
    "network_g", "network_d", "train", "logger",
}  # fmt: skip
DATASET = {
    "type", "name", "dataroot_gt", "dataroot_lq", "patch_size", "batch_size", "augmentation", "aug_prob",
}  # fmt: skip
# data/otf_dataset.py, models/otf.py; 1 and 2 are the two rounds
DEGRADATIONS = {"gray_noise_prob", "second_blur_prob", "final_sinc_prob"} | {
    f"{name}{round_}" for round_ in ("", "2") for name in (
        "resize_prob", "resize_range", "gaussian_noise_prob", "noise_range", "poisson_scale_range", "gray_noise_prob",
        "jpeg_range", "blur_kernel_size", "kernel_list", "kernel_prob", "sinc_prob", "blur_sigma", "betag_range",
        "betap_range",
    )
}  # fmt: skip
TRAINING = {"ema", "optim_g", "optim_d", "mssim_opt", "perceptual_opt", "gan_opt"}
VAL = {"val_freq", "metrics"}
LOGGER = {"total_iter", "save_checkpoint_freq", "use_tb_logger"}


def load(file: Path) -> Options:
    options: Options = tomllib.loads(file.read_text())
    return options


def sections(options: Options) -> Iterator[tuple[str, Options, set[str]]]:
    """Yield each section: its place in the file, its content, and the keys that are read."""
    yield "", options, TOP
    for name, section in options["datasets"].items():
        yield f"datasets.{name}", section, DATASET
    yield "degradations", options.get("degradations", {}), DEGRADATIONS
    yield "val", options["val"], VAL
    yield "path", options["path"], set()
    yield "train", options["train"], TRAINING
    yield "train.perceptual_opt", options["train"]["perceptual_opt"], {"type", *KEYWORDS}
    yield "logger", options["logger"], LOGGER


def built_sections(options: Options) -> Iterator[tuple[str, Options, set[str]]]:
    """Yield the sections whose keys are the keywords of what neosr builds from them."""
    from neosr.metrics import calculate_metric  # noqa: F401  # fills the registry
    from neosr.optimizers import adan_sf
    from neosr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

    for name in ("network_g", "network_d"):
        if name in options:
            yield name, options[name], keywords(ARCH_REGISTRY.get(options[name]["type"]))
    for name, metric in options["val"]["metrics"].items():
        yield f"val.metrics.{name}", metric, keywords(METRIC_REGISTRY.get(metric["type"]))
    for name, section in options["train"].items():
        if name.startswith("optim"):
            assert section["type"] == "adan_sf"
            yield f"train.{name}", section, keywords(adan_sf)
        elif name.endswith("_opt") and name != "perceptual_opt":
            yield f"train.{name}", section, keywords(LOSS_REGISTRY.get(section["type"]))


def keywords(function: Any) -> set[str]:
    """Return the names a call may use, without **kwargs, which would swallow misspellings."""
    parameters = inspect.signature(function).parameters.values()
    return {"type", *(each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD)}


def unknown_keys(named: Iterator[tuple[str, Options, set[str]]]) -> set[str]:
    return {f"{place}.{key}".lstrip(".") for place, section, known in named for key in section if key not in known}


def test_the_files_are_there() -> None:
    assert [file.stem for file in FILES] == ["train_span_clp_vgg", "train_span_otf_clp_dinov2"]


@every_file
def test_every_key_is_read(file: Path) -> None:
    assert unknown_keys(sections(load(file))) == set()


@every_file
def test_a_misspelled_key_is_found(file: Path) -> None:
    options = load(file)
    options["unknown"] = options["train"]["perceptual_opt"]["los_weight"] = 1
    assert unknown_keys(sections(options)) == {"unknown", "train.perceptual_opt.los_weight"}


@every_file
def test_the_header_names_the_file(file: Path) -> None:
    text = file.read_text()
    assert set(re.findall(r"\S+\.toml", text)) == {file.name}
    assert load(file)["name"] == file.stem


@every_file
def test_the_commented_options_of_the_loss_are_real(file: Path) -> None:
    """As everything in a TOML they belong to the table above them."""
    (block,) = re.findall(r"^\[train\.perceptual_opt\]\n(.*?)^\[", file.read_text(), re.M | re.S)
    assert set(re.findall(r"^#(\w+) =", block, re.M)) == {"weights", "start_iter", "warmup_iter"}


def test_the_pages_blocks() -> None:
    page = (ROOT / "docs" / "neosr.md").read_text(encoding="utf-8")
    assert f'echo "{ONE_LINE.strip()}" > neosr/losses/clp_loss.py' in page
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    perceptual = tomllib.loads(block)["train"]["perceptual_opt"]
    assert perceptual.pop("type") == clp_loss.__name__
    assert set(perceptual) <= set(KEYWORDS)


@every_file
@needs_neosr
@pytest.mark.usefixtures("neosr")
@pytest.mark.filterwarnings("ignore:weights=.random.", "ignore:.*CUDA is not available")
def test_it_trains(
    file: Path, pairs: Path, vgg_weights: Path, dino_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With narrower networks and smaller crops, on batches of the data set that the file asks for."""
    from neosr.data import build_dataset

    options = load(file)
    options["datasets"]["train"] |= {"dataroot_gt": str(pairs / "gt"), "patch_size": 16, "queue_size": 2}
    if "dataroot_lq" in options["datasets"]["train"]:
        options["datasets"]["train"]["dataroot_lq"] = str(pairs / "lq")
    options["datasets"]["train"] |= {**options.get("degradations", {}), "batch_size": 2}  # as train.py does
    options["network_g"]["feature_channels"] = 8
    options.get("network_d", {})["num_feat"] = 4
    perceptual = load(file)["train"]["perceptual_opt"]
    options["train"]["perceptual_opt"] |= {
        "vgg": {"weights": str(vgg_weights)},
        "dinov2": {"model": str(dino_folder)},
    }[perceptual["model"]]
    model = build(options, tmp_path)
    assert unknown_keys(built_sections(load(file))) == set()
    assert dict(model.cri_perceptual.layer_weights) == perceptual["layer_weights"]
    assert model.cri_perceptual.loss_weight == perceptual["loss_weight"]

    monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(tmp_path / "options.toml")])
    images = build_dataset({**model.opt["datasets"]["train"], "phase": "train", "scale": 4})
    batch = default_collate([images[0], images[1]])
    before = [parameter.detach().clone() for parameter in model.net_g.parameters()]
    for log in train(model, [batch, batch]):
        assert set(log) >= {"l_g_mssim", "l_g_percep", *CLP_KEYS}
        assert ("l_g_gan" in log) == ("gan_opt" in options["train"])
    assert not all(map(torch.equal, before, model.net_g.parameters()))
