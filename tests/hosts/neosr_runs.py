"""neosr 0.1.0 itself, moved to the CPU: option files, models, and its training loop.

Its wheel has no train.py (the checkout has), and that refuses to run without a GPU. `train` does with a
model what that file does with it.
"""

import functools
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clp_basicsr import loss
from clp_basicsr.images import check_images
from hosts.options import PERCEPTUAL, SCALE, Options
from hosts.records import Call

Batch = dict[str, Tensor]

needs_neosr = pytest.mark.skipif(
    importlib.util.find_spec("neosr") is None,
    reason="neosr is not installed (0.1.0 takes Python 3.12 and numpy 1.26, so an environment of its own)",
)

ONE_LINE = "from clp_basicsr.hosts.neosr import register; register()\n"
CLP = {**PERCEPTUAL, "type": "clp_loss"}
NETWORK: Options = {"type": "compact", "num_feat": 4, "num_conv": 1}


def neosr_options(*, model_type: str = "image", accumulate: int = 1, **train: Any) -> Options:
    """Return the options of a training run; ``train`` adds to that section, None leaves one of its entries out."""
    training = {
        "optim_g": {"type": "adam", "lr": 1e-3},
        "grad_clip": False,
        "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0},
        "perceptual_opt": CLP,
        **train,
    }
    return {
        "name": "tiny",
        "model_type": model_type,
        "scale": SCALE,
        "manual_seed": 0,
        "datasets": {"train": {"type": "paired", "patch_size": 8, "batch_size": 2, "accumulate": accumulate}},
        "path": {},
        "network_g": NETWORK,
        "train": {name: value for name, value in training.items() if value is not None},
        "logger": {"total_iter": 100, "print_freq": 1, "save_checkpoint_freq": 100, "use_tb_logger": True},
    }


def toml(options: Options, table: str = "") -> str:
    """Write options as TOML."""
    tables = {name: value for name, value in options.items() if isinstance(value, dict)}
    lines = [f"{name} = {_value(value)}" for name, value in options.items() if name not in tables]
    inner = [toml(value, f"{table}{name}.") for name, value in tables.items()]
    return "\n".join([f"[{table[:-1]}]" if table else "", *lines, *inner])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import neosr with the command line that it insists on, with the loss in it."""
    from clp_basicsr.hosts.neosr import register

    file = tmp_path_factory.mktemp("neosr") / "options.toml"
    file.write_text(toml(neosr_options()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", "-opt", str(file)])
        register()
    torch.use_deterministic_algorithms(False)  # `manual_seed` in the file turns them on


@pytest.fixture
def neosr(registered: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """neosr without a GPU for the time of a test, whatever asks for one by name."""
    from neosr.models.base import base
    from neosr.models.otf import otf
    from neosr.utils.diffjpeg import DiffJPEG

    def stay(self: Any, *_: Any, **__: Any) -> Any:
        return self

    compress = DiffJPEG.forward
    monkeypatch.setattr("neosr.utils.diffjpeg.device", torch.device("cpu"))
    # On the CPU its output is not contiguous, and neosr's blur takes no other.
    monkeypatch.setattr(DiffJPEG, "forward", lambda *images, **quality: compress(*images, **quality).contiguous())
    for model in (base, otf):
        monkeypatch.setattr(model, "__init__", _on_cpu(model.__init__))
    monkeypatch.setattr(nn.Module, "cuda", stay)
    monkeypatch.setattr(Tensor, "cuda", stay)
    with torch.random.fork_rng(devices=[]):
        yield


def _on_cpu(make: Any) -> Any:
    @functools.wraps(make)
    def make_on_cpu(self: Any, options: Options) -> None:
        make(self, options)
        self.device = torch.device("cpu")

    return make_on_cpu


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The images that any CLPLoss saw in this test, in order."""
    seen: list[Call] = []

    def check(*images: Tensor) -> None:
        seen.append(Call(*(each.detach().clone() for each in images)))
        check_images(*images)

    monkeypatch.setattr(loss, "check_images", check)
    return seen


def build(options: Options, folder: Path) -> Any:
    """Return the model of an option file, read by neosr's own parser."""
    from neosr.models import build_model
    from neosr.utils.options import parse_options

    file = folder / "options.toml"
    file.write_text(toml(options))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", "-opt", str(file)])
        parsed, _ = parse_options(str(folder), is_train=True)
        model = build_model(parsed)  # imports the architectures, which read the command line again
    torch.use_deterministic_algorithms(False)
    return model


def train(model: Any, batches: Iterable[Batch], start: int = 0) -> Iterator[dict[str, float]]:
    """Train on batches, ``start`` of which an earlier run has seen; yield the log after each."""
    for current_iter, batch in enumerate(batches, start + 1):
        model.feed_data(batch)
        model.optimize_parameters(current_iter)
        model.update_learning_rate(current_iter, warmup_iter=-1)
        yield model.get_current_log()


def batches(number: int) -> list[Batch]:
    """Random pairs of images, each batch its own."""
    generator = torch.Generator().manual_seed(1)
    targets = [torch.rand(2, 3, 32, 32, generator=generator) for _ in range(number)]
    return [{"gt": target, "lq": F.avg_pool2d(target, SCALE)} for target in targets]
