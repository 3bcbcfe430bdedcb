"""BasicSR's models in one table: what each is trained with, and which part of ``lq`` belongs to its output."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage import data
from torch import Tensor

from hosts.conftest import CROPS, SIZE
from hosts.options import CROP, DISCRIMINATOR, NETWORKS, PERCEPTUAL, SCALE, Options, train_options
from hosts.realesrgan import DEGRADATIONS, LITTLE_BLUR, write_large_images

Image = np.ndarray
Pair = tuple[Tensor, Tensor]

FRAMES = 5  # of a clip whose centre is restored, and of one to validate


# What the loss must see of a batch: LR, and GT.
def images(lq: Tensor, gt: Tensor) -> Pair:
    """All of ``(N, C, h, w)``."""
    return lq, gt


def centre_frame(lq: Tensor, gt: Tensor) -> Pair:
    """Of clips ``(N, T, C, h, w)`` the frame with as many before it as after it."""
    (centre,) = lq.unbind(1)[FRAMES // 2 : -(FRAMES // 2)]
    return centre, gt


def every_frame(lq: Tensor, gt: Tensor) -> Pair:
    """Of clips ``(N, T, C, h, w)`` every frame, clip after clip."""
    return torch.cat(list(lq)), torch.cat(list(gt))


def mixed(lq: Tensor, gt: Tensor) -> Pair:
    """What `hosts.third_party.ThirdPartyMixing` makes of a batch."""
    first, second = (0.7 * each + 0.3 * each.flip(0) for each in (lq, gt))
    return first, second


# Where the batches come from: the options of a data set of BasicSR's.
def photos(folder: Path) -> Options:
    """Pairs of photos, GT four times the size of LR."""
    return {"type": "PairedImageDataset", **_folders(folder / "photos")}


def photos_of_one_size(folder: Path) -> Options:
    """Pairs whose LR has the size of GT, in [-1, 1], as faces are restored."""
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    return {"type": "PairedImageDataset", **_folders(folder / "one_size"), **half, "scale": 1}


def clips_with_a_centre(folder: Path) -> Options:
    """LR clips beside the GT of their centre frames."""
    return {"type": "Vimeo90KDataset", **_clips(folder / "vimeo"), "num_frame": FRAMES}


def clips(folder: Path) -> Options:
    """Clips of LR and GT."""
    reds = {"num_frame": 3, "val_partition": "REDS4", "test_mode": False}
    return {"type": "REDSRecurrentDataset", **_clips(folder / "reds"), **reds}


def photos_to_degrade(folder: Path) -> Options:
    """GT alone, and blur kernels: the model makes LR."""
    names = {"dataroot_gt": str(folder / "large"), "meta_info": str(folder / "large" / "names.txt")}
    return {"type": "RealESRGANDataset_basicsr", **LITTLE_BLUR, **names}


@dataclass(frozen=True)
class Row:
    """How a model is trained here: with what data and networks, and in which lines its options differ.

    ``train`` and ``perceptual`` go to these sections, ``top`` beside them; ``imports`` is for ``--import``.
    """

    data: Callable[[Path], Options]
    sees: Callable[[Tensor, Tensor], Pair] | None  # None: the model makes LR itself
    network: Options
    discriminator: Options | None = None
    train: Options = field(default_factory=dict)
    perceptual: Options = field(default_factory=dict)
    top: Options = field(default_factory=dict)
    steps: int = 2
    imports: str | None = None

    @property
    def percep(self) -> str:
        """The name in the log."""
        return "l_g_percep" if self.discriminator else "l_percep"


EDVR: Options = {"type": "EDVR", "num_feat": 4, "num_frame": FRAMES, "deformable_groups": 1}
EDVR |= {"num_extract_block": 1, "num_reconstruct_block": 1}
RECURRENT: Options = {"type": "ThirdPartyRecurrentNet"}  # the flow network of BasicVSR needs LR of 64 pixels
FLOW: Options = {"fix_flow": 2, "lr_flow": 1e-4}
FACES: Options = {"type": "HiFaceGAN", "num_feat": 2, "crop_size": CROP}
FACES_D: Options = {"type": "HiFaceGANDiscriminator", "num_feat": 2, "n_layers_d": 2}
FACES_GAN: Options = {"gan_opt": {"type": "MultiScaleGANLoss", "gan_type": "hinge", "loss_weight": 0.1}}
# The pool holds one batch: from the second step on, pairs are those of the step before.
POOL: Options = {**DEGRADATIONS, "queue_size": 2}
USM: Options = {"l1_gt_usm": True, "percep_gt_usm": False, "gan_gt_usm": False}
OWN = "hosts.third_party"

SR, SRGAN, ESRGAN, SWINIR = (NETWORKS[name] for name in ("SRModel", "SRGANModel", "ESRGANModel", "SwinIRModel"))
D = DISCRIMINATOR

MATRIX: dict[str, Row] = {
    "SRModel": Row(photos, images, SR),
    "SwinIRModel": Row(photos, images, SWINIR),
    "SRGANModel": Row(photos, images, SRGAN, D),
    "ESRGANModel": Row(photos, images, ESRGAN, D),
    "RealESRNetModel_basicsr": Row(photos_to_degrade, None, SR, top={**POOL, "gt_usm": False}, steps=3),
    "RealESRGANModel_basicsr": Row(photos_to_degrade, None, SR, D, top={**POOL, **USM}, steps=3),
    "VideoBaseModel": Row(clips_with_a_centre, centre_frame, {**EDVR, "with_tsa": False}),
    "EDVRModel": Row(clips_with_a_centre, centre_frame, EDVR, train={"tsa_iter": 2, "dcn_lr_mul": 0.5}),
    "VideoGANModel": Row(clips_with_a_centre, centre_frame, EDVR, D),
    "VideoRecurrentModel": Row(clips, every_frame, RECURRENT, train={"fix_flow": 2, "flow_lr_mul": 0.5}, imports=OWN),
    "VideoRecurrentGANModel": Row(clips, every_frame, RECURRENT, D, train=FLOW, imports=OWN),
    "HiFaceGANModel": Row(photos_of_one_size, images, FACES, FACES_D, FACES_GAN, {"range_norm": True}, {"scale": 1}),
    "ThirdPartyAccumulating": Row(photos, images, SR, imports=OWN),
    "ThirdPartyMixing": Row(photos, mixed, ESRGAN, D, imports=OWN),
    "ThirdPartyLoop": Row(photos, images, SR, imports=OWN),
}


def options_for(model_type: str, folder: Path, perceptual: Options | None = None, **train: object) -> Options:
    """Return the options of a run, with two images or clips at each step and none of them twice.

    Args:
        model_type: a key of `MATRIX`.
        folder: of `write_material`.
        perceptual: further lines of ``perceptual_opt``.
        **train: further lines of ``train``.
    """
    row = MATRIX[model_type]
    lines = {**PERCEPTUAL, **row.perceptual, **(perceptual or {})}
    options = train_options(folder, model_type=model_type, perceptual=lines, total_iter=row.steps)
    options["network_g"] = deepcopy(row.network)
    options["datasets"]["train"] |= row.data(folder)
    if row.discriminator:
        options["network_d"] = deepcopy(row.discriminator)
        options["train"]["optim_d"] = dict(options["train"]["optim_g"])
        options["train"]["gan_opt"] = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}
    options["train"] |= {**deepcopy(row.train), **train}
    return {**options, **deepcopy(row.top)}


def clip_to_validate(folder: Path, *, recurrent: bool) -> Options:
    """Return the options of a data set with one clip, for models that restore all of it at once or frame by frame."""
    kind = "VideoRecurrentTestDataset" if recurrent else "VideoTestDataset"
    names = {**_folders(folder / "reds_test"), "name": "REDS4", "io_backend": {"type": "disk"}}
    return {"type": kind, **names, "cache_data": True, "num_frame": FRAMES, "padding": "reflection"}


def options_without_lr(folder: Path) -> Options:
    """Return the options of StyleGAN2Model, which has noise in the place of LR, and no perceptual loss."""
    options = options_for("SRGANModel", folder)
    options["network_g"] = {"type": "ThirdPartyGenerator", "num_style_feat": 4}
    options["network_d"] = {"type": "ThirdPartyDiscriminator"}
    rhythm = {"net_g_reg_every": 9, "net_d_reg_every": 9, "mixing_prob": 0.5}
    options["train"] |= {**rhythm, "r1_reg_weight": 10, "path_reg_weight": 2}
    return {**options, "model_type": "StyleGAN2Model", "val": {"val_freq": 9, "save_img": False}}


def write_material(folder: Path) -> None:
    """Write what the data sets above read below ``folder``."""
    for name in CROPS:
        photo = _photo(name)
        _write_pair(folder / "photos", f"{name}.png", photo, _smaller(photo))
        photo = _photo(name, CROP)  # all of it, so that no crop cuts through a pixel of LR
        _write_pair(folder / "one_size", f"{name}.png", photo, _smaller(photo).repeat(SCALE, 0).repeat(SCALE, 1))
        for frame in range(7):
            photo = _photo(name, moved=8 * frame)
            _write_pair(folder / "vimeo", f"clip/{name}/im{frame + 1}.png", photo, _smaller(photo))
            _write_pair(folder / "reds", f"{name}/{frame:08d}.png", photo, _smaller(photo))
    for frame in range(FRAMES):
        photo = _photo("astronaut", moved=8 * frame)
        _write_pair(folder / "reds_test", f"astronaut/{frame:08d}.png", photo, _smaller(photo))
    (folder / "vimeo" / "names.txt").write_text("".join(f"clip/{name} 7 (96,96,3)\n" for name in CROPS))
    (folder / "reds" / "names.txt").write_text("".join(f"{name} 1 (96,96,3)\n" for name in CROPS))
    (folder / "large").mkdir()
    write_large_images(folder / "large")


def _photo(name: str, size: int = SIZE, moved: int = 0) -> Image:
    top, left = CROPS[name][0], CROPS[name][1] + moved
    photo: Image = getattr(data, name)()[top : top + size, left : left + size, ::-1]
    return photo


def _smaller(photo: Image) -> Image:
    return cv2.resize(photo, None, fx=1 / SCALE, fy=1 / SCALE, interpolation=cv2.INTER_AREA)


def _write_pair(folder: Path, name: str, gt: Image, lr: Image) -> None:
    for part, image in (("gt", gt), ("lq", lr)):
        path = folder / part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)


def _folders(folder: Path) -> Options:
    return {"dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq")}


def _clips(folder: Path) -> Options:
    return {**_folders(folder), "meta_info_file": str(folder / "names.txt"), "random_reverse": True}
