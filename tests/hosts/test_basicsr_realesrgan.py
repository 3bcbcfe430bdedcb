"""BasicSR's own Real-ESRGAN models, which make their LR batch themselves and mix pairs through a pool."""

from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.models import build_model
from basicsr.utils.img_process_util import usm_sharp
from torch import Tensor

from hosts.options import SCALE
from hosts.realesrgan import DEGRADATIONS, batch, check_that_pairs_stay_together, on_cpu, realesrgan_options
from hosts.records import Records
from hosts.runs import isolated

__all__ = ["on_cpu"]


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("usm", [True, False])
@pytest.mark.parametrize("model_type", ["RealESRGANModel_basicsr", "RealESRNetModel_basicsr"])
def test_lr_is_the_partner_of_gt_from_the_pool(
    model_type: str, usm: bool, pairs: Path, tmp_path: Path, records: Records
) -> None:
    options = realesrgan_options(pairs, model_type, usm=usm)
    check_that_pairs_stay_together(options, "basicsr", tmp_path, records)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("usm", [True, False])
@pytest.mark.parametrize("model_type", ["RealESRGANModel_basicsr", "RealESRNetModel_basicsr"])
def test_positive_is_the_gt_that_the_options_ask_for(
    model_type: str, usm: bool, pairs: Path, tmp_path: Path, records: Records
) -> None:
    """Held against BasicSR's other sharpening, that of OpenCV."""
    with isolated(tmp_path):
        options = realesrgan_options(pairs, model_type, usm=usm)
        model = build_model({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1})
        fed = batch(1)
        model.feed_data(fed)
        model.optimize_parameters(1)
    target, size = records.calls[0].target, DEGRADATIONS["gt_size"]
    whole = sharpened(fed["gt"]) if usm and model_type.startswith("RealESRNet") else fed["gt"]
    crops = whole.unfold(2, size, SCALE).unfold(3, size, SCALE).flatten(2, 3).transpose(1, 2)  # (N, crops, 3, …)
    if usm and model_type.startswith("RealESRGAN"):  # this one sharpens what it has cropped
        crops = torch.stack([sharpened(each) for each in crops])
    difference = (crops - target[:, None]).abs().amax((2, 3, 4)).amin(1)
    assert difference.max() < (1e-3 if usm else 1e-9)
    assert not usm or (fed["gt"] - sharpened(fed["gt"])).abs().max() > 0.02


def sharpened(images: Tensor) -> Tensor:
    each = [usm_sharp(image.permute(1, 2, 0).numpy()) for image in images]
    return torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("model_type", ["RealESRGANModel", "RealESRNetModel"])
def test_fine_tuning_with_pairs(model_type: str, pairs: Path, tmp_path: Path, records: Records) -> None:
    """They have a `feed_data` of their own: it keeps the data set's negatives, and no GT for a batch without."""
    options = realesrgan_options(pairs, model_type, usm=True)
    options["high_order_degradation"] = False
    options["train"]["perceptual_opt"]["negatives"] = ["lr", "files"]
    gt, lr, neg = (torch.rand(1, 3, size, size) for size in (64, 16, 64))
    with isolated(tmp_path):
        model = build_model({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1})
    model.feed_data({"gt": gt, "lq": lr, "neg": neg})
    model.optimize_parameters(1)
    assert len(records.calls) == 1
    assert torch.equal(model.neg, neg)
    assert "gt" in model.get_current_visuals() or not hasattr(model, "output")
    model.feed_data({"lq": lr})
    assert not hasattr(model, "gt")
