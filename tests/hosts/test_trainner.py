"""traiNNer-redux's contract. It is on no package registry, so its loop stands here as its source has it.

From traiNNer/models/sr_model.py: losses live in a dict on the model, are called as
``loss(output, target)``, and are multiplied by ``abs(loss.loss_weight)``, but in older versions, and
divided by ``accum_iters`` outside; ``use_compile`` compiles them. traiNNer/losses/__init__.py imports every
``*_loss.py`` beside it.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clp_basicsr.hosts.weighting import host_multiplies
from hosts.runs import python, succeeded

PACKAGE = {
    "traiNNer/__init__.py": "",
    "traiNNer/utils/__init__.py": "",
    "traiNNer/utils/registry.py": """
        class Registry(dict):
            def register(self, cls):
                assert cls.__name__ not in self
                self[cls.__name__] = cls
        LOSS_REGISTRY = Registry()
    """,
    "traiNNer/losses/__init__.py": "import traiNNer.losses.clp_loss",
    "traiNNer/losses/clp_loss.py": """
        from clp_basicsr.hosts.trainner import register
        register()
    """,
    "traiNNer/models/__init__.py": "",
    "traiNNer/models/base_model.py": """
        class BaseModel:
            def __init__(self, opt):
                self.opt = opt
    """,
    "traiNNer/models/sr_model.py": """
        import torch
        from traiNNer.losses import clp_loss
        from traiNNer.models.base_model import BaseModel
        from traiNNer.utils.registry import LOSS_REGISTRY

        class L1Loss(torch.nn.L1Loss):
            def __init__(self, loss_weight):
                super().__init__()
                self.loss_weight = loss_weight

        class SRModel(BaseModel):
            def __init__(self, opt):
                super().__init__(opt)
                self.losses, self.schedulers, self.accum_iters = {}, [], opt.accum_iter
                self.net_g = torch.nn.Upsample(scale_factor=4)
                for loss in opt.losses:
                    assert "loss_weight" in loss, f"{loss['type']} must define loss_weight"
                    kind = LOSS_REGISTRY["CLPLoss"] if loss["type"] == "CLPLoss" else L1Loss
                    label = f"l_g_{loss['type'].lower().removesuffix('loss')}"
                    self.losses[label] = kind(**{name: value for name, value in loss.items() if name != "type"})
                    if opt.use_compile:
                        self.losses[label] = torch.compile(self.losses[label], backend="eager")

            def optimize_parameters(self, current_iter, current_accum_iter, apply_gradient):
                lq_target = {}
                l_g_total = 0
                for label, loss in self.losses.items():
                    target = self.gt if loss.loss_weight >= 0 else lq_target
                    value = loss(self.output, target) * abs(loss.loss_weight)
                    l_g_total += value / self.accum_iters
                    lq_target[label] = value.detach()
                self.values = lq_target
                return l_g_total
    """,
    "common.py": """
        import torch
        import torch._dynamo  # train.py has imported everything there is by now: nothing is imported any more
        from types import SimpleNamespace
        from traiNNer.models.sr_model import SRModel
        from clp_basicsr import CLPLoss

        NETWORK = {"model": "vgg", "weights": "random", "layer_weights": {"relu1_2": 1.0}}
        CLP = {"type": "CLPLoss", "loss_weight": 0.02, **NETWORK}
        batch = torch.load("batch.pt")
        batch["sr"].requires_grad_()

        def built(*losses, accum_iter=2, use_compile=False, **formats):
            model = SRModel(SimpleNamespace(losses=losses, accum_iter=accum_iter, use_compile=use_compile, **formats))
            model.output, model.gt, model.lq = batch["sr"], batch["gt"], batch["lq"]
            return model

        def steps(model, first, last):
            # As train.py, whose iterations have `accum_iter` batches each.
            batches = model.accum_iters
            return [
                model.optimize_parameters(done + (part == batches - 1), (part + 1) % batches, part == batches - 1)
                for done in range(first - 1, last)
                for part in range(batches)
            ]
    """,
    "run.py": """
        from common import *

        expected = CLPLoss(loss_weight=0.02, **NETWORK)(batch["sr"], batch["gt"], batch["lq"]) / 2
        for use_compile in (False, True):
            for seen in steps(built(CLP, use_compile=use_compile), 1, 1):
                assert seen.shape == ()
                torch.testing.assert_close(seen, expected, rtol=1e-5, atol=0)
        later = [value > 0 for value in steps(built(CLP | {"start_iter": 2}), 1, 4)]
        assert later == [False] * 4 + [True] * 4, later
        resumed = [value > 0 for value in steps(built(CLP | {"start_iter": 2}), 3, 3)]
        assert resumed == [True, True], resumed
    """,
    "compiled.py": """
        from common import *

        negatives = ["lr", {"type": "lagged", "every": 3}, {"type": "blur", "seed": 0}]
        stateful = CLP | {"auto_weight": 0.1, "warmup_iter": 20, "negatives": negatives}
        eager, compiled = (steps(built(stateful, use_compile=each), 1, 12) for each in (False, True))
        assert eager == compiled, (eager, compiled)
    """,
    "share.py": """
        from common import *

        def gradient(model):
            return torch.autograd.grad(model.optimize_parameters(1, 0, True), batch["sr"])[0]

        for weight in (0.1, 10.0):
            pixel = {"type": "L1Loss", "loss_weight": weight}
            own = gradient(built(pixel, accum_iter=1))
            both = gradient(built(pixel, CLP | {"loss_weight": 1e6, "auto_weight": 0.1}, accum_iter=1))
            share = (both - own).norm() / own.norm()
            assert abs(share - 0.1) < 1e-3, (weight, share)
    """,
    "formats.py": """
        from common import *

        model = built(CLP | {"negatives": "lagged"}, input_pixel_format="y", output_pixel_format="rgb")
        try:
            model.optimize_parameters(1, 0, True)
        except ValueError as error:
            assert "must be without ['lagged']" in str(error) and "['rgb', 'y']" in str(error)
        else:
            raise AssertionError("a copy of a network of luma got RGB")
    """,
}


def written(folder: Path, *, multiplies: bool = True) -> Path:
    for name, text in PACKAGE.items():
        text = text if multiplies else text.replace(" * abs(loss.loss_weight)", "")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(line.removeprefix("        ") for line in text.splitlines()))
    gt = torch.rand(2, 3, 32, 32)
    torch.save({"sr": gt * 0.9, "gt": gt, "lq": F.avg_pool2d(gt, 4)}, folder / "batch.pt")
    return folder


@pytest.mark.parametrize("multiplies", [True, False])
def test_weight_counts_once_lr_is_the_models_own_and_iterations_are_train_pys(multiplies: bool, tmp_path: Path) -> None:
    succeeded(python("run.py", folder=written(tmp_path, multiplies=multiplies)))


def test_a_compiled_loss_counts_measures_and_draws_as_it_does_otherwise(tmp_path: Path) -> None:
    succeeded(python("compiled.py", folder=written(tmp_path)))


def test_auto_weight_is_a_share_of_the_hosts_own_pixel_loss(tmp_path: Path) -> None:
    succeeded(python("share.py", folder=written(tmp_path)))


def test_copies_of_networks_that_take_no_rgb_are_refused(tmp_path: Path) -> None:
    succeeded(python("formats.py", folder=written(tmp_path)))


class _Multiplies:
    def step(self, loss: Any) -> Any:
        return self.weighted(loss)

    def weighted(self, loss: Any) -> Any:
        value = loss()
        value *= loss.loss_weight
        return value


class _HasAStepOfItsOwn(_Multiplies):
    def step(self, loss: Any) -> Any:
        return self.weighted(loss)


class _MultipliesByAName:
    def step(self, loss: Any, schedule: float) -> Any:
        base_weight: float = abs(loss.loss_weight)
        adjusted_weight = base_weight + schedule
        return loss() * adjusted_weight


class _LeavesItToTheLoss:
    def step(self, loss: Any) -> Any:
        is_negative = loss.loss_weight < 0  # multiplies nothing by loss_weight
        return 2 * loss() * is_negative


@pytest.mark.parametrize(
    ("model", "multiplies"),
    [(_Multiplies, True), (_HasAStepOfItsOwn, True), (_MultipliesByAName, True), (_LeavesItToTheLoss, False)],
)
def test_who_multiplies_is_said_by_the_classes_of_the_model(model: type[Any], multiplies: bool) -> None:
    assert host_multiplies(model) == multiplies
