"""traiNNer-redux's contract. It is on no package registry, so its loop stands here as its source has it.

From traiNNer/models/sr_model.py: losses live in a dict on the model, are called as
``loss(output, target)``, and are multiplied by ``abs(loss.loss_weight)``, but in older versions, and
divided by ``accum_iters`` outside. traiNNer/losses/__init__.py imports every ``*_loss.py`` beside it.
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
                self.losses = {"l_g_clp": LOSS_REGISTRY["CLPLoss"](**opt)}

            def total(self, output, gt, lq, accum_iters):
                self.lq, total = lq, 0
                for loss in self.losses.values():
                    total += loss(output, gt) * abs(loss.loss_weight) / accum_iters
                return total
    """,
    "run.py": """
        import torch
        from traiNNer.models.sr_model import SRModel
        from clp_basicsr import CLPLoss
        from clp_basicsr.hosts.trainner import register

        register()
        options = {"model": "vgg", "weights": "random", "layer_weights": {"relu1_2": 1.0}, "loss_weight": 0.02}
        batch = torch.load("batch.pt")
        seen = SRModel(options).total(batch["sr"], batch["gt"], batch["lq"], accum_iters=4)
        expected = CLPLoss(**options)(batch["sr"], batch["gt"], batch["lq"]) / 4
        print(seen.shape, seen.item(), expected.item())
    """,
}


@pytest.mark.parametrize("multiplies", [True, False])
def test_weight_counts_once_and_lr_is_the_models_own(multiplies: bool, tmp_path: Path) -> None:
    for name, text in PACKAGE.items():
        text = text if multiplies else text.replace(" * abs(loss.loss_weight)", "")
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(line.removeprefix("        ") for line in text.splitlines()))
    gt = torch.rand(2, 3, 32, 32)
    torch.save({"sr": gt * 0.9, "gt": gt, "lq": F.avg_pool2d(gt, 4)}, tmp_path / "batch.pt")

    shape, seen, expected = succeeded(python("run.py", folder=tmp_path)).rsplit(maxsplit=2)
    assert shape == "torch.Size([])"
    assert float(seen) == pytest.approx(float(expected), rel=1e-5)
