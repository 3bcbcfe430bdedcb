"""traiNNer-redux's contract. It is on no package registry, so its loop stands here as its source has it.

From traiNNer/models/sr_model.py: losses live in a dict on the model, are called as
``loss(output, target)``, and are multiplied by ``abs(loss.loss_weight)``, but in older versions, and
divided by ``accum_iters`` outside; ``use_compile`` compiles them. traiNNer/losses/__init__.py imports every
``*_loss.py`` beside it.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

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
        from traiNNer.losses import clp_loss
        from traiNNer.models.base_model import BaseModel
        from traiNNer.utils.registry import LOSS_REGISTRY

        class SRModel(BaseModel):
            def __init__(self, opt):
                super().__init__(opt)
                self.losses, self.schedulers, self.accum_iters = {}, [], 2
                for loss in [opt]:
                    assert "loss_weight" in loss, f"{loss['type']} must define loss_weight"
                    if float(loss["loss_weight"]) > 0:
                        self.losses["l_g_clp"] = LOSS_REGISTRY["CLPLoss"](**loss)

            def optimize_parameters(self, current_iter, current_accum_iter, apply_gradient):
                l_g_total = 0
                for loss in self.losses.values():
                    l_g_total += loss(self.output, self.gt) * abs(loss.loss_weight) / self.accum_iters
                return l_g_total
    """,
    "run.py": """
        import torch
        from traiNNer.models.sr_model import SRModel
        from clp_basicsr import CLPLoss
        from clp_basicsr.hosts.trainner import register

        register()
        options = {"model": "vgg", "weights": "random", "layer_weights": {"relu1_2": 1.0}, "loss_weight": 0.02}
        batch = torch.load("batch.pt")
        batch["sr"].requires_grad_()
        expected = CLPLoss(**options)(batch["sr"], batch["gt"], batch["lq"]) / 2

        def values(compiles, first, last, **more):
            # As train.py, whose iterations have two batches each.
            model = SRModel(options | more)
            if compiles:
                model.losses = {label: torch.compile(loss, backend="eager") for label, loss in model.losses.items()}
            model.output, model.gt, model.lq = batch["sr"], batch["gt"], batch["lq"]
            return [
                model.optimize_parameters(done + part, current_accum_iter=1 - part, apply_gradient=part == 1)
                for done in range(first - 1, last)
                for part in (0, 1)
            ]

        for compiles in (False, True):
            for seen in values(compiles, 1, 1):
                assert seen.shape == ()
                torch.testing.assert_close(seen, expected, rtol=1e-5, atol=0)
        later = [value > 0 for value in values(False, 1, 4, start_iter=2)]
        assert later == [False] * 4 + [True] * 4, later
        resumed = [value > 0 for value in values(False, 3, 3, start_iter=2)]
        assert resumed == [True, True], resumed
    """,
}


@pytest.mark.parametrize("multiplies", [True, False])
def test_weight_counts_once_lr_is_the_models_own_and_iterations_are_train_pys(multiplies: bool, tmp_path: Path) -> None:
    for name, text in PACKAGE.items():
        text = text if multiplies else text.replace(" * abs(loss.loss_weight)", "")
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(line.removeprefix("        ") for line in text.splitlines()))
    gt = torch.rand(2, 3, 32, 32)
    torch.save({"sr": gt * 0.9, "gt": gt, "lq": F.avg_pool2d(gt, 4)}, tmp_path / "batch.pt")

    succeeded(python("run.py", folder=tmp_path))
