"""Weights and photos that every test may use; nothing here needs a network."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # for `benchmarks`, which is not installed
if os.environ.get("CLP_TEST_GPU") != "1":  # only the files test_gpu*.py ask for one
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the tests are of the CPU paths; a GPU would change launcher and backend
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported: its kernels run on the CPU then
os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: errors of the hub then come at once
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors on shared cores: more threads take three times as long

from collections.abc import Callable

import fuzzing
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from skimage import data
from torch import Tensor, nn
from torchvision.models import vgg
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
)
from transformers.utils import logging

logging.disable_progress_bar()

SCALE = 4
CROP = 128
# Where the photo has detail: (photo, top, left).
CROPS: tuple[tuple[Callable[[], np.ndarray], int, int], ...] = (
    (data.astronaut, 40, 160),
    (data.coffee, 100, 230),
    (data.chelsea, 70, 130),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare ``--slow``."""
    parser.addoption("--slow", action="store_true", help="run the tests marked as slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out, in the open."""
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: pytest --slow runs it"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the process's counts over, where pytest-xdist runs the tests in several."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["fuzzing"] = dict(fuzzing.cases)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Add up what the processes of pytest-xdist counted."""
    fuzzing.cases.update(getattr(node, "workeroutput", {}).get("fuzzing", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cases were fuzzed."""
    if fuzzing.cases:
        each = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(fuzzing.cases.items()))
        terminalreporter.write_line(f"fuzzing: {fuzzing.cases.total():,} cases ({each})")


@pytest.fixture(scope="session")
def vgg_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict as torchvision's VGG19 has it, random; of the classifier one small entry."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        features = vgg.make_layers(vgg.cfgs["E"])
        for layer in features:
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
                nn.init.normal_(layer.bias, std=0.02)
    state = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({**state, "classifier.6.bias": torch.zeros(10)}, path)
    return path


@pytest.fixture(scope="session")
def package_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name, state dicts of small networks of torchvision and timm, random and larger than as initialised."""
    import timm

    folder = tmp_path_factory.mktemp("packages")
    paths: dict[str, Path] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for name in ("torchvision:squeezenet1_1", "timm:test_resnet", "timm:test_vit3"):
            package, _, model = name.partition(":")
            network = timm.create_model(model) if package == "timm" else torchvision.models.get_model(model)
            for parameter in network.parameters():
                parameter.detach().add_(0.05 * torch.randn(parameter.shape))
            paths[name] = folder / f"{model}.pth"
            torch.save(network.state_dict(), paths[name])
    return paths


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of DINOv2 with nine narrow blocks."""
    config = Dinov2Config(**_tiny(blocks=9), image_size=56, patch_size=14)
    return _saved(Dinov2Model, config, tmp_path_factory.mktemp("checkpoints") / "dinov2")


@pytest.fixture(scope="session")
def dino_reg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of DINOv2 with registers, four narrow blocks."""
    config = Dinov2WithRegistersConfig(**_tiny(blocks=4), image_size=56, patch_size=14, num_register_tokens=4)
    return _saved(Dinov2WithRegistersModel, config, tmp_path_factory.mktemp("checkpoints") / "dinov2_reg")


@pytest.fixture(scope="session")
def dinov3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of DINOv3 with registers, four narrow blocks."""
    config = DINOv3ViTConfig(**_tiny(blocks=4), patch_size=16, intermediate_size=64, num_register_tokens=4)
    return _saved(DINOv3ViTModel, config, tmp_path_factory.mktemp("checkpoints") / "dinov3")


@pytest.fixture(scope="session")
def photo_batch() -> tuple[Tensor, Tensor]:
    """Crops of photos (N, 3, 128, 128) in [0, 1] and the same four times smaller; not to be written to."""
    crops = [photo()[top : top + CROP, left : left + CROP] for photo, top, left in CROPS]
    gt = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div(255).contiguous()
    return gt, F.interpolate(gt, scale_factor=1 / SCALE, mode="area")


def _tiny(blocks: int) -> dict[str, int]:
    return {"hidden_size": 32, "num_hidden_layers": blocks, "num_attention_heads": 4}


def _saved(model: type[PreTrainedModel], config: object, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = model(config)
        # As initialised, all blocks nearly pass their input on; larger weights make each one matter.
        for name, parameter in network.named_parameters():
            spread = 0.1 if parameter.dim() == 1 else 0.2
            nn.init.normal_(parameter, mean=float(name.endswith(("norm.weight", "lambda1"))), std=spread)
        network.save_pretrained(folder)
    return folder
