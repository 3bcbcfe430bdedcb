"""The `realesrgan` package from PyPI beside BasicSR: its own models, data sets and training entry."""

import importlib
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY
from test_options import TRAIN, shrink

import clp_basicsr
from hosts.conftest import CROPS
from hosts.options import write
from hosts.realesrgan import (
    LITTLE_BLUR,
    check_partners,
    check_that_pairs_stay_together,
    on_cpu,
    realesrgan_options,
    write_large_images,
)
from hosts.records import CLP_KEYS, Call, Records, log_entries, log_text
from hosts.runs import python, succeeded, train

__all__ = ["on_cpu"]

pytestmark = pytest.mark.skipif(
    find_spec("realesrgan") is None, reason="the package realesrgan is not installed: pip install '.[realesrgan]'"
)

MODELS = ("RealESRGANModel", "RealESRNetModel")
TESTS = Path(__file__).parents[1]
FINE_TUNING = TRAIN / "RealESRGAN" / "finetune_realesrgan_x4plus_pairdata_clp_vgg.yml"


@pytest.fixture
def realesrgan() -> str:
    """Import the package, which registers what it brings, and return where it lies."""
    return str(importlib.import_module("realesrgan").__file__)


@pytest.mark.usefixtures("realesrgan")
def test_what_it_registers_wins_over_basicsrs_own() -> None:
    for registry, names in (
        (MODEL_REGISTRY, MODELS),
        (DATASET_REGISTRY, ("RealESRGANDataset", "RealESRGANPairedDataset")),
        (ARCH_REGISTRY, ("UNetDiscriminatorSN", "SRVGGNetCompact")),
    ):
        for name in names:
            assert registry.get(name).__module__.startswith("realesrgan."), name
            assert registry.get(f"{name}_basicsr").__module__.startswith("basicsr."), name
    assert issubclass(LOSS_REGISTRY.get("CLPLoss"), clp_basicsr.CLPLoss)


@pytest.mark.usefixtures("realesrgan", "on_cpu")
@pytest.mark.parametrize("model_type", MODELS)
def test_lr_is_the_partner_of_gt_from_the_pool(model_type: str, pairs: Path, tmp_path: Path, records: Records) -> None:
    options = realesrgan_options(pairs, model_type, usm=True)
    check_that_pairs_stay_together(options, "realesrgan", tmp_path, records)


def test_its_own_training_entry(realesrgan: str, tmp_path: Path) -> None:
    """``realesrgan/train.py`` as it is, in a checkout, with nothing but ``import clp_basicsr`` before it."""
    shutil.copytree(Path(realesrgan).parent, tmp_path / "realesrgan", ignore=shutil.ignore_patterns("__pycache__"))
    options = realesrgan_options(tmp_path, "RealESRGANModel", usm=True)
    options["datasets"]["train"] |= {"type": "RealESRGANDataset", **LITTLE_BLUR, **write_large_images(tmp_path)}
    options["queue_size"] = 2  # a batch: from the second step on, pairs come from the pool
    options["train"]["total_iter"] = 3
    file = write(options, tmp_path)
    entry = ("-m", "hosts.realesrgan_entry", str(tmp_path), "-opt", str(file))
    output = succeeded(python(*entry, folder=tmp_path, path=TESTS))

    experiment = tmp_path / "experiments" / "tiny"
    assert "Model [RealESRGANModel] is created" in log_text(experiment)
    assert "RealESRGANModel_basicsr" not in output  # BasicSR says so where it takes its own
    logged = log_entries(experiment)
    assert set(logged) == {1, 2, 3}
    assert all(set(values) >= {"l_g_percep", *CLP_KEYS} for values in logged.values())
    calls = [Call(**images) for images in torch.load(tmp_path / "calls.pt", weights_only=True)]
    assert [call.lr.shape for call in calls] == [(2, 3, 16, 16)] * 3
    check_partners(calls)


@pytest.mark.usefixtures("on_cpu")
def test_fine_tuning_on_pairs_with_the_option_file(
    pairs: Path, tmp_path: Path, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    options = shrink(yaml.safe_load(FINE_TUNING.read_text(encoding="utf-8")))
    names = tmp_path / "pairs.txt"
    names.write_text("".join(f"gt/{name}.png, lq/{name}.png\n" for name in CROPS), encoding="utf-8")
    data = {"dataroot_gt": str(pairs), "dataroot_lq": str(pairs), "meta_info": str(names), "gt_size": 64}
    options["datasets"]["train"] |= {**data, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    options["path"] |= {"pretrain_network_g": None, "pretrain_network_d": None}
    options["percep_gt_usm"] = False  # the LR files are those of GT as it is
    options["train"]["total_iter"], options["logger"]["print_freq"] = 2, 1
    experiment = train(tmp_path, options, "--import", "realesrgan")

    printed = capsys.readouterr().out
    assert "Dataset [RealESRGANPairedDataset]" in log_text(experiment)
    assert "RealESRGANPairedDataset_basicsr" not in printed
    assert "RealESRGANModel_basicsr" not in printed
    assert set(log_entries(experiment)[2]) >= {"l_g_percep", *CLP_KEYS}
    assert len(records.calls) == 2
    check_partners(records.calls)
