"""neosr 1.0's contract, on a stand-in: it is on no package registry, so the real one is not tried here.

Written after its sources, for what they do differently from 0.1.0, which has real steps in test_neosr.py:
the network's output is clamped to [1/255, 1] before any loss sees it; the discriminator runs in
inference mode; it wants Python 3.13 and numpy 2. (That its train.py makes the GPU the default device before
anything is built is tested in tests/core/test_contract.py.)
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hosts.runs import python, succeeded

PACKAGE = {
    "neosr/__init__.py": """
        from neosr.losses import *
        from neosr.models import *
    """,
    "neosr/utils/__init__.py": "from neosr.utils.logger import get_root_logger",
    "neosr/utils/registry.py": """
        class Registry(dict):
            def register(self, loss):
                assert loss.__name__ not in self
                self[loss.__name__] = loss
        LOSS_REGISTRY = Registry()
    """,
    "neosr/utils/logger.py": """
        import logging

        def get_root_logger():
            return logging.getLogger("neosr")

        def get_dist_info():
            return 0, 1

        class MessageLogger:
            def __call__(self, log_vars):
                pass
    """,
    "neosr/losses/__init__.py": """
        import importlib
        from pathlib import Path
        import neosr.utils.logger
        from neosr.utils.registry import LOSS_REGISTRY

        __all__ = ["build_loss"]
        for file in Path(__file__).parent.glob("*_loss.py"):
            importlib.import_module(f"neosr.losses.{file.stem}")

        def build_loss(opt):
            opt = dict(opt)
            return LOSS_REGISTRY.get(opt.pop("type"))(**opt)
    """,
    "neosr/losses/clp_loss.py": "from clp_basicsr.hosts.neosr import register; register()",
    "neosr/models/__init__.py": "import neosr.models.image",
    "neosr/models/base.py": """
        import torch

        class base:
            def __init__(self, opt):
                self.opt, self.schedulers = opt, []

            def reduce_loss_dict(self, loss_dict):
                with torch.inference_mode():
                    return {name: value.mean().item() for name, value in loss_dict.items()}
    """,
    "neosr/models/image.py": """
        import torch
        from neosr.losses import build_loss
        from neosr.models.base import base

        class image(base):
            def __init__(self, opt):
                super().__init__(opt)
                self.net_g = torch.nn.Conv2d(3, 48, 1)
                self.net_d = torch.nn.Conv2d(3, 1, 1)
                self.optimizer = torch.optim.SGD(self.net_g.parameters(), 0.1)
                self.n_accumulated, self.accum_iters = 0, opt["accumulate"]
                self.eco = opt.get("eco", False)
                self.cri_perceptual = build_loss(opt["train"]["perceptual_opt"]).to(
                    "cpu", memory_format=torch.channels_last, non_blocking=True
                )

            def count_accumulated(self):
                # In both methods, as in image.py: with an even `accumulate` it steps where one would not think.
                self.n_accumulated += 1
                if self.n_accumulated >= self.accum_iters:
                    self.n_accumulated = 0

            def closure(self, current_iter):
                self.count_accumulated()
                output = torch.nn.functional.pixel_shuffle(self.net_g(self.lq), 4)
                self.output = torch.clamp(output, 1 / 255, 1)
                with torch.inference_mode():
                    self.net_d(self.output)
                l_g_total = torch.zeros(1)
                l_g_percep = self.cri_perceptual(self.output, self.gt)
                l_g_total += l_g_percep
                l_g_total /= self.accum_iters
                l_g_total.backward()
                self.log_dict = self.reduce_loss_dict({"l_g_percep": l_g_percep, "l_g_total": l_g_total})
                return l_g_total

            def optimize_parameters(self, current_iter):
                self.count_accumulated()
                self.closure(current_iter)
                if self.n_accumulated % self.accum_iters == 0:
                    self.optimizer.step()
                    self.optimizer.zero_grad(set_to_none=True)
    """,
    "run.py": """
        import sys
        import torch
        from neosr.models.image import image

        opt = torch.load("options.pt")
        model = image(opt)
        model.net_g.load_state_dict(torch.load("network.pt"))
        logs = []
        for current_iter, batch in enumerate(torch.load("batches.pt"), 1):
            model.gt, model.lq = batch["gt"], batch["lq"]
            model.optimize_parameters(current_iter)
            logs.append(model.log_dict)
        torch.save({"logs": logs, "network": model.net_g.state_dict()}, "out.pt")
    """,
}
PERCEPTUAL = {"model": "vgg", "weights": "random", "layer_weights": {"relu1_2": 1.0}, "loss_weight": 0.02}


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    for name, text in PACKAGE.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(line.removeprefix("        ") for line in text.splitlines()))
    torch.manual_seed(0)
    batches = [torch.rand(2, 3, 32, 32) for _ in range(6)]
    torch.save([{"gt": gt, "lq": F.avg_pool2d(gt, 4)} for gt in batches], tmp_path / "batches.pt")
    torch.save(torch.nn.Conv2d(3, 48, 1).state_dict(), tmp_path / "network.pt")
    return tmp_path


def save_options(folder: Path, **options: object) -> None:
    perceptual = {"type": "clp_loss", **PERCEPTUAL, "start_iter": 1}
    torch.save({"train": {"perceptual_opt": perceptual}, "accumulate": 3, **options}, folder / "options.pt")


@pytest.mark.filterwarnings("ignore:weights=.random.")
def test_steps_on_a_clamped_output(stand_in: Path) -> None:
    from clp_basicsr import CLPLoss

    save_options(stand_in)
    succeeded(python("run.py", folder=stand_in))
    out = torch.load(stand_in / "out.pt")

    network, loss = torch.nn.Conv2d(3, 48, 1), CLPLoss(**PERCEPTUAL)  # type: ignore[arg-type]
    network.load_state_dict(torch.load(stand_in / "network.pt"))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    assert [log["l_g_percep"] for log in out["logs"][:3]] == [0, 0, 0]  # iteration 1 is three batches
    for batch, log in list(zip(torch.load(stand_in / "batches.pt"), out["logs"], strict=True))[3:]:
        sr = F.pixel_shuffle(network(batch["lq"]), 4).clamp(1 / 255, 1)
        assert (sr == 1 / 255).any()  # else this would say nothing about the clamp
        value = loss(sr, batch["gt"], batch["lq"])
        (value / 3).backward()
        assert log["l_g_percep"] == pytest.approx(value.item(), rel=1e-4)
        assert {"clp_pull", "clp_push", "clp_active"} <= set(log)
    optimizer.step()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(out["network"][name], tensor)


def test_a_loss_that_never_has_its_turn(stand_in: Path) -> None:
    save_options(stand_in, logger={"total_iter": 1})
    run = python("run.py", folder=stand_in)
    assert "CLPLoss has `start_iter: 1`, but the run has `total_iter: 1`: it trains without it." in run.stderr


def test_eco_is_refused(stand_in: Path) -> None:
    save_options(stand_in, eco=True)
    run = python("run.py", folder=stand_in)
    assert "ValueError: Option `eco` of [train] must be off with CLPLoss" in run.stderr
