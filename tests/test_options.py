"""The training YAMLs: every key is one that the code reads, and every file builds a model."""

import inspect
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import clp_basicsr  # isort: skip  # must come first: without it BasicSR 1.4.2 cannot be imported
from basicsr.models import build_model, lr_scheduler
from basicsr.utils.options import ordered_yaml
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

Options = dict[str, Any]

TRAIN = Path(__file__).parents[1] / "options" / "train"
FILES = sorted(TRAIN.rglob("*.yml"))
RECIPES = {
    "ESRGAN/train_ESRGAN_x4",
    "RealESRGAN/finetune_realesrgan_x4plus_pairdata",
    "RealESRGAN/train_realesrgan_x4plus",
    "SRResNet_SRGAN/train_MSRResNet_x4",
    "SwinIR/train_SwinIR_SRx2",
    "SwinIR/train_SwinIR_SRx4",
}

# ---- keys read by BasicSR 1.4.2; those of networks, losses, metrics, optimizers and schedulers are
# not listed here, they come from the signatures

# train.py, utils/options.py, models/base_model.py
TOP = {"name", "model_type", "scale", "num_gpu", "manual_seed", "find_unused_parameters"} | {
    "datasets", "network_g", "network_d", "path", "train", "val", "logger", "dist_params",
}  # fmt: skip

# models/realesrgan_model.py
TOP_REALESRGAN = {
    "l1_gt_usm", "percep_gt_usm", "gan_gt_usm", "high_order_degradation", "gt_size", "queue_size",
    "resize_prob", "resize_range", "gaussian_noise_prob", "noise_range", "poisson_scale_range",
    "gray_noise_prob", "jpeg_range", "second_blur_prob",
    "resize_prob2", "resize_range2", "gaussian_noise_prob2", "noise_range2", "poisson_scale_range2",
    "gray_noise_prob2", "jpeg_range2",
}  # fmt: skip

# train.py, data/__init__.py
LOADER = {
    "name", "type", "num_worker_per_gpu", "batch_size_per_gpu", "dataset_enlarge_ratio",
    "prefetch_mode", "num_prefetch_queue", "pin_memory", "persistent_workers",
}  # fmt: skip

DATASET = {
    # data/paired_image_dataset.py
    "PairedImageDataset": {
        "dataroot_gt", "dataroot_lq", "meta_info_file", "filename_tmpl", "io_backend", "gt_size",
        "use_hflip", "use_rot", "color", "mean", "std",
    },
    # data/realesrgan_dataset.py
    "RealESRGANDataset": {
        "dataroot_gt", "meta_info", "io_backend", "use_hflip", "use_rot",
        "blur_kernel_size", "kernel_list", "kernel_prob", "sinc_prob",
        "blur_sigma", "betag_range", "betap_range",
        "blur_kernel_size2", "kernel_list2", "kernel_prob2", "sinc_prob2",
        "blur_sigma2", "betag_range2", "betap_range2", "final_sinc_prob",
    },
    # data/realesrgan_paired_dataset.py
    "RealESRGANPairedDataset": {
        "dataroot_gt", "dataroot_lq", "meta_info", "filename_tmpl", "io_backend", "gt_size",
        "use_hflip", "use_rot", "mean", "std",
    },
}  # fmt: skip

# models/sr_model.py, models/srgan_model.py, utils/misc.py (check_resume)
PATH = {
    "pretrain_network_g", "param_key_g", "strict_load_g",
    "pretrain_network_d", "param_key_d", "strict_load_d",
    "resume_state", "ignore_resume_networks",
}  # fmt: skip

# train.py, models/sr_model.py, models/srgan_model.py
TRAINING = {
    "total_iter", "warmup_iter", "ema_decay", "optim_g", "optim_d", "scheduler",
    "pixel_opt", "perceptual_opt", "ldl_opt", "gan_opt", "net_d_iters", "net_d_init_iters",
}  # fmt: skip

VAL = {"val_freq", "save_img", "metrics", "pbar", "suffix"}  # train.py, models/sr_model.py
METRIC = {"type", "better"}  # metrics/__init__.py, models/base_model.py
LOGGER = {
    "print_freq",
    "save_checkpoint_freq",
    "use_tb_logger",
    "wandb",
}  # train.py, utils/logger.py
WANDB = {"project", "resume_id"}  # utils/logger.py
DIST = {"backend", "port"}  # utils/dist_util.py

SCHEDULERS = {  # models/base_model.py
    "MultiStepLR": lr_scheduler.MultiStepRestartLR,
    "CosineAnnealingRestartLR": lr_scheduler.CosineAnnealingRestartLR,
}

# sizes that build in a moment
SMALL: Options = {
    "network_g": {
        "num_feat": 8,
        "num_block": 1,
        "num_grow_ch": 4,
        "embed_dim": 12,
        "depths": [2],
        "num_heads": [2],
    },
    "network_d": {"num_feat": 4},
}


def load(file: Path) -> Options:
    """Parse a file as BasicSR's launcher does."""
    with file.open() as stream:
        options: Options = yaml.load(stream, Loader=ordered_yaml()[0])
    return options


def keywords(function: Callable[..., object]) -> set[str]:
    """Return the names a call may use, without **kwargs, which would swallow misspellings."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind in named} - {"self"}


def accepted(section: str, options: Options) -> set[str]:
    """Return the keys of a network, loss, optimizer or scheduler section."""
    kind = options["type"]
    if section.startswith("network"):
        return {"type"} | keywords(ARCH_REGISTRY.get(kind).__init__)
    if section.startswith("optim"):
        return {"type"} | keywords(getattr(torch.optim, kind).__init__) - {"params"}
    if section == "scheduler":
        return {"type"} | keywords(SCHEDULERS[kind].__init__) - {"optimizer"}
    if kind == "CLPLoss":
        return {"type"} | keywords(clp_basicsr.CLPLoss.__init__)
    return {"type"} | keywords(LOSS_REGISTRY.get(kind).__init__)


def dataset_sections(options: Options) -> Iterator[tuple[str, Options, set[str]]]:
    """Yield the sections below `datasets`."""
    for name, section in options["datasets"].items():
        yield f"datasets.{name}", section, LOADER | DATASET[section["type"]]
        yield f"datasets.{name}.io_backend", section["io_backend"], {"type"}


def training_sections(options: Options) -> Iterator[tuple[str, Options, set[str]]]:
    """Yield `train` and the losses, optimizers and the scheduler in it."""
    yield "train", options["train"], TRAINING
    for name, section in options["train"].items():
        if isinstance(section, dict) and name in TRAINING:
            yield f"train.{name}", section, accepted(name, section)


def validation_sections(options: Options) -> Iterator[tuple[str, Options, set[str]]]:
    """Yield `val` and its metrics."""
    yield "val", options["val"], VAL
    for name, section in options["val"]["metrics"].items():
        known = METRIC | keywords(METRIC_REGISTRY.get(section["type"]))
        yield f"val.metrics.{name}", section, known - {"img", "img2"}


def sections(options: Options) -> Iterator[tuple[str, Options, set[str]]]:
    """Yield each section: its place in the file, its content, and the keys that the code reads."""
    real = options["model_type"] == "RealESRGANModel"
    yield "", options, TOP | TOP_REALESRGAN if real else TOP
    yield from dataset_sections(options)
    for name in ("network_g", "network_d"):
        if name in options:
            yield name, options[name], accepted(name, options[name])
    yield "path", options["path"], PATH
    yield from training_sections(options)
    if "val" in options:
        yield from validation_sections(options)
    yield "logger", options["logger"], LOGGER
    yield "logger.wandb", options["logger"]["wandb"], WANDB
    yield "dist_params", options["dist_params"], DIST


def unknown_keys(options: Options) -> set[str]:
    """Return the keys that nothing reads, as dotted names."""
    return {
        f"{place}.{key}".lstrip(".")
        for place, section, known in sections(options)
        for key in section
        if key not in known
    }


def is_number(text: str) -> bool:
    """Whether a string is one that float() takes."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def number_strings(value: object, place: str = "") -> list[str]:
    """Return the places where a number was parsed as a string, as YAML does with 1e-4."""
    if isinstance(value, dict):
        inner = {f"{place}.{key}": each for key, each in value.items()}
    elif isinstance(value, list):
        inner = {f"{place}[{index}]": each for index, each in enumerate(value)}
    else:
        return [f"{place}: {value!r}"] if isinstance(value, str) and is_number(value) else []
    return [hit for where, each in inner.items() for hit in number_strings(each, where)]


def shrink(options: Options) -> Options:
    """Return a copy with small networks and random weights in the loss."""
    small = deepcopy(options)
    for name in SMALL.keys() & small.keys():
        small[name].update({key: size for key, size in SMALL[name].items() if key in small[name]})
    loss = small["train"]["perceptual_opt"]
    loss["weights"] = "random"
    if loss["model"] == "dinov2":
        loss["model"] = "dinov2_small"
    return small


def on_cpu(options: Options, folder: Path) -> Options:
    """Return a copy with what BasicSR's launcher fills in, for one process on the CPU."""
    ready = deepcopy(options)
    ready.update(num_gpu=0, dist=False, rank=0, world_size=1, is_train=True)
    ready["path"].update(pretrain_network_g=None, pretrain_network_d=None)
    ready["path"].update(experiments_root=str(folder), log=str(folder))
    for name in ("models", "training_states", "visualization"):
        ready["path"][name] = str(folder / name)
    return ready


def name_of(file: Path) -> str:
    return file.stem


every_file = pytest.mark.parametrize("file", FILES, ids=name_of)


@pytest.fixture
def no_cuda_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let RealESRGANModel, which calls .cuda() on its helpers, be built without a GPU."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.nn.Module, "cuda", lambda self, device=None: self)


def test_the_twelve_files_are_there() -> None:
    expected = {f"{recipe}_clp_{model}.yml" for recipe in RECIPES for model in ("vgg", "dinov2")}
    assert {file.relative_to(TRAIN).as_posix() for file in FILES} == expected


@every_file
def test_every_key_is_read(file: Path) -> None:
    assert unknown_keys(load(file)) == set()


@every_file
def test_no_number_is_a_string(file: Path) -> None:
    assert number_strings(load(file)) == []


@every_file
def test_a_misspelled_key_is_found(file: Path) -> None:
    options = load(file)
    options["unknown"] = 1
    options["network_g"]["num_feats"] = 8
    options["datasets"]["train"]["use_flip"] = True
    options["train"]["perceptual_opt"]["los_weight"] = 1.0
    expected = {
        "unknown",
        "network_g.num_feats",
        "datasets.train.use_flip",
        "train.perceptual_opt.los_weight",
    }
    assert unknown_keys(options) == expected


def test_a_number_parsed_as_a_string_is_found() -> None:
    options = yaml.load("{train: {lr: 1e-4, betas: [0.9, 1e-1]}, gamma: 0.5}", ordered_yaml()[0])
    assert number_strings(options) == [".train.lr: '1e-4'", ".train.betas[1]: '1e-1'"]


@every_file
def test_the_header_names_the_file(file: Path) -> None:
    path = file.relative_to(TRAIN.parents[1]).as_posix()
    commands = [line for line in file.read_text().splitlines()[:5] if f"-opt {path}" in line]
    assert len(commands) == 2


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_the_files_of_a_pair_differ_in_name_and_loss_only(recipe: str) -> None:
    vgg, dinov2 = (load(TRAIN / f"{recipe}_clp_{model}.yml") for model in ("vgg", "dinov2"))
    assert vgg.pop("name") == dinov2.pop("name").replace("dinov2", "vgg")
    assert vgg["train"].pop("perceptual_opt")["model"] == "vgg"
    assert dinov2["train"].pop("perceptual_opt")["model"] == "dinov2"
    assert vgg == dinov2


@every_file
@pytest.mark.usefixtures("no_cuda_calls")
@pytest.mark.filterwarnings("ignore:weights=.random.", "ignore:torch.meshgrid")
def test_the_model_is_built_with_the_loss_of_the_file(file: Path, tmp_path: Path) -> None:
    options = load(file)
    loss = build_model(on_cpu(shrink(options), tmp_path)).cri_perceptual
    expected = options["train"]["perceptual_opt"]
    assert isinstance(loss, clp_basicsr.CLPLoss)
    assert loss.loss_weight == expected["loss_weight"]
    assert dict(loss.layer_weights) == dict(expected["layer_weights"])
    assert dict(loss.extractor.default_layer_weights) == dict(expected["layer_weights"])
