"""Tiny option files: every model_type these tests train, small enough for a second on a CPU."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml

Options = dict[str, Any]

SCALE = 4
CROP = 64
GAN_MODELS = ("SRGANModel", "ESRGANModel")

NETWORKS: dict[str, Options] = {
    "SRModel": {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": SCALE},
    "SwinIRModel": {
        "type": "SwinIR",
        "upscale": SCALE,
        "img_size": CROP // SCALE,
        "window_size": 4,
        "depths": [2],
        "embed_dim": 8,
        "num_heads": [2],
        "mlp_ratio": 2,
        "upsampler": "pixelshuffledirect",
        "resi_connection": "1conv",
    },
    "SRGANModel": {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 4},
    "ESRGANModel": {
        "type": "RRDBNet",
        "num_in_ch": 3,
        "num_out_ch": 3,
        "num_feat": 4,
        "num_block": 1,
        "num_grow_ch": 4,
    },
}
DISCRIMINATOR: Options = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}

# Shallow, so that a step is quick; the first layers of a VGG that is built by name and not from a file.
PERCEPTUAL: Options = {
    "type": "CLPLoss",
    "model": "vgg",
    "weights": "random",
    "layer_weights": {"relu1_2": 1.0, "relu2_2": 0.5},
    "loss_weight": 0.01,
}

# BasicSR has no other optimizer than Adam. With betas of zero and an eps far above any gradient its step is
# lr / eps x gradient: what is float noise in the gradient stays float noise in the weights.
DESCENT: Options = {"type": "Adam", "lr": 1e4, "betas": [0.0, 0.0], "eps": 1e5}


def train_options(
    pairs: Path, *, model_type: str = "SRModel", perceptual: Options | None = None, total_iter: int = 4, **train: Any
) -> Options:
    """Return the options of a training run that logs every iteration; ``train`` adds to that section."""
    is_gan = model_type in GAN_MODELS
    optimizers = ("optim_g", "optim_d") if is_gan else ("optim_g",)
    options: Options = {
        "name": "tiny",
        "model_type": model_type,
        "scale": SCALE,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {"train": _train_data(pairs)},
        "network_g": deepcopy(NETWORKS.get(model_type, NETWORKS["SRModel"])),
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            **{name: {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]} for name in optimizers},
            "scheduler": {"type": "MultiStepLR", "milestones": [6], "gamma": 0.5},
            "total_iter": total_iter,
            "warmup_iter": -1,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "perceptual_opt": deepcopy(perceptual or PERCEPTUAL),
            **train,
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 4, "use_tb_logger": True},
    }
    if is_gan:
        options["network_d"] = dict(DISCRIMINATOR)
        options["train"].setdefault("gan_opt", {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 5e-3})
    return options


def joint_options(
    pairs: Path, processes: int, *, together: int = 2, model_type: str = "SRModel", total_iter: int = 4, **train: Any
) -> Options:
    """Return options of a run of ``processes``, whose batches are together those of a run of ``together`` processes.

    ``pairs`` are four of the size of the crop; two iterations are an epoch.
    """
    options = train_options(pairs, model_type=model_type, total_iter=total_iter, optim_g=dict(DESCENT), **train)
    options["num_gpu"] = int(torch.cuda.is_available())
    options["datasets"]["train"] |= {
        "batch_size_per_gpu": 2 * together // processes,
        "dataset_enlarge_ratio": together,
        "use_hflip": False,
        "use_rot": False,
    }
    options["logger"]["save_checkpoint_freq"] = 1
    return with_validation(options, pairs, every=4)


def with_validation(options: Options, pairs: Path, every: int) -> Options:
    """Add validation on the same pairs."""
    return {
        **options,
        "datasets": {**options["datasets"], "val": _whole_images(pairs, "held_out")},
        "val": {"val_freq": every, "save_img": False, "metrics": {"psnr": dict(_PSNR)}},
    }


def evaluation_options(pairs: Path, network: Path) -> Options:
    """Return the options of a test run of a trained SRModel."""
    return {
        "name": "tiny_test",
        "model_type": "SRModel",
        "scale": SCALE,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {"test_1": _whole_images(pairs, "photos")},
        "network_g": dict(NETWORKS["SRModel"]),
        "path": {"pretrain_network_g": str(network), "strict_load_g": True},
        "val": {"save_img": True, "suffix": None, "metrics": {"psnr": dict(_PSNR)}},
    }


def write(options: Options, folder: Path, name: str = "options.yml") -> Path:
    """Write an option file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
    return path


_PSNR: Options = {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": False}


def _train_data(pairs: Path) -> Options:
    return {
        **_whole_images(pairs, "photos"),
        "gt_size": CROP,
        "use_hflip": True,
        "use_rot": True,
        "num_worker_per_gpu": 0,
        "batch_size_per_gpu": 2,
        "dataset_enlarge_ratio": 1,
        "prefetch_mode": None,
    }


def _whole_images(pairs: Path, name: str) -> Options:
    return {
        "name": name,
        "type": "PairedImageDataset",
        "dataroot_gt": str(pairs / "gt"),
        "dataroot_lq": str(pairs / "lq"),
        "io_backend": {"type": "disk"},
    }
