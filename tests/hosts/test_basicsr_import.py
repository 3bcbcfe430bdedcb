"""``import clp_basicsr`` before, after, without and inside ``import basicsr``, each in a fresh process."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from hosts.runs import SHIM_BY_HAND, python, succeeded

WITHOUT_BASICSR = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "basicsr":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""

# One step of a model that came from this `basicsr`: the loss is registered, finds its LR batch, and is logged.
USE = """
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import LOSS_REGISTRY
model = BaseModel({"num_gpu": 0, "is_train": True, "dist": False})
model.cri_perceptual = LOSS_REGISTRY.get("CLPLoss")(model="vgg", weights="random", layer_weights={"relu1_1": 1.0})
model.lq = torch.rand(1, 3, 8, 8)
value, style = model.cri_perceptual(torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32))
assert style is None
print("LOGGED", *sorted(model.reduce_loss_dict({"l_percep": value})))
"""
LOGGED = "LOGGED clp_active clp_pull clp_push l_percep"


def test_import_is_light_and_needs_no_basicsr(tmp_path: Path) -> None:
    script = f"""{WITHOUT_BASICSR}
import clp_basicsr, torch
print(sorted({{"basicsr", "torchvision", "transformers"}} & set(sys.modules)))
sr = torch.rand(1, 3, 32, 32, requires_grad=True)
loss = clp_basicsr.CLPLoss(model="vgg", weights="random", layer_weights={{"relu1_1": 1.0}})
loss(sr, torch.rand(1, 3, 32, 32), torch.rand(1, 3, 8, 8)).backward()
print(bool(sr.grad.abs().sum() > 0))
"""
    assert succeeded(python("-c", script, folder=tmp_path)).split("\n")[:2] == ["[]", "True"]


def test_import_leaves_an_installed_basicsr_alone(tmp_path: Path) -> None:
    script = "import sys, clp_basicsr; print(sorted({'basicsr', 'torchvision', 'transformers'} & set(sys.modules)))"
    assert succeeded(python("-c", script, folder=tmp_path)).strip() == "[]"


def test_register_without_basicsr(tmp_path: Path) -> None:
    run = python("-c", f"{WITHOUT_BASICSR}\nimport clp_basicsr\nclp_basicsr.register()", folder=tmp_path)
    assert run.returncode == 1
    last_line = run.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: ")
    assert "pip install basicsr" in last_line


@pytest.mark.parametrize("call", ["import basicsr", "clp_basicsr.register()"])
@pytest.mark.parametrize("error", ["ModuleNotFoundError('No module named lmdb', name='lmdb')", "OSError('broken')"])
def test_an_error_in_basicsr_itself_is_shown(call: str, error: str, tmp_path: Path) -> None:
    (tmp_path / "basicsr").mkdir()
    (tmp_path / "basicsr" / "__init__.py").write_text(f"raise {error}\n", encoding="utf-8")
    run = python("-c", f"import clp_basicsr\n{call}", folder=tmp_path, path=tmp_path)
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1] == error.replace("('", ": ").split("'")[0]


@pytest.mark.parametrize(
    "imports",
    [
        "import clp_basicsr\nimport basicsr",
        "import clp_basicsr\nimport basicsr.utils.registry",
        f"{SHIM_BY_HAND}\nimport basicsr\nimport clp_basicsr",
    ],
    ids=["clp first", "clp first, then the registry alone", "basicsr first"],
)
def test_any_order(imports: str, tmp_path: Path) -> None:
    assert LOGGED in succeeded(python("-c", f"{imports}\n{USE}", folder=tmp_path))


def test_inside_somebody_elses_finder(tmp_path: Path) -> None:
    """As of tools that watch imports: it stands in the place of each finder, and asks that one."""
    wrapped = """
import sys
import clp_basicsr
class Watched:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, *given):
        return self.finder.find_spec(*given)
sys.meta_path[:] = [Watched(each) for each in sys.meta_path]
import basicsr
"""
    assert LOGGED in succeeded(python("-c", f"{wrapped}\n{USE}", folder=tmp_path))


@pytest.mark.parametrize("inside", ["archs/user_arch.py", "models/lr_scheduler.py"])
def test_from_inside_a_partially_imported_basicsr(inside: str, tmp_path: Path) -> None:
    """As in a checkout of BasicSR with somebody's own files in it, which it imports while it is imported."""
    installed, copied = find_spec("basicsr"), tmp_path / "basicsr"
    assert installed is not None
    assert installed.origin is not None
    shutil.copytree(Path(installed.origin).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    file = copied / inside
    former = file.read_text(encoding="utf-8") if file.exists() else ""
    file.write_text(f"import clp_basicsr\n{former}", encoding="utf-8")
    shim = "" if inside.startswith("archs") else SHIM_BY_HAND  # archs are imported before the module that needs it
    output = succeeded(python("-c", f"{shim}\nimport basicsr\n{USE}", folder=tmp_path, path=tmp_path))
    assert LOGGED in output


FORK = {
    "utils/__init__.py": "",
    "models/__init__.py": "",
    "data/__init__.py": "",
    "metrics/__init__.py": "def calculate_psnr(): pass",
    "data/paired_image_dataset.py": "class PairedImageDataset: pass",
    "models/sr_model.py": "class SRModel: pass",
    "models/base_model.py": """
class BaseModel:
    def __init__(self, opt):
        self.opt = opt

    def reduce_loss_dict(self, losses):
        return losses

    def validation(self, dataloader, current_iter, tb_logger, save_img=False, rgb2bgr=True, use_image=True):
        return save_img, rgb2bgr, use_image
""",
}


def test_forks_from_before_the_registries_are_left_as_they_are(tmp_path: Path) -> None:
    """NAFNet and Restormer bring a `basicsr` of 2020: no registries, a longer `validation`."""
    for name, text in {"__init__.py": "", **FORK}.items():
        (tmp_path / "basicsr" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "basicsr" / name).write_text(text, encoding="utf-8")
    use = """
import clp_basicsr
import basicsr.metrics, basicsr.data.paired_image_dataset, basicsr.models.sr_model
from basicsr.models.base_model import BaseModel
print(BaseModel({}).validation(None, 1, None, False, False, use_image=False))
clp_basicsr.register()
"""
    run = python("-c", use, folder=tmp_path, path=tmp_path)
    assert run.stdout == "(False, False, False)\n", run.stderr
    last_line = run.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: This BasicSR has no registries")


def test_others_who_look_for_torchvisions_old_module_find_all_of_it(tmp_path: Path) -> None:
    use = """
import clp_basicsr
import torchvision.transforms.functional_tensor as old
from torchvision.transforms import _functional_tensor as new
assert old.resize is new.resize
assert not hasattr(old, "nothing") and not hasattr(old, "__path__")
"""
    succeeded(python("-W", "ignore", "-c", use, folder=tmp_path))


def test_several_may_wait_for_one_module(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("done = []")
    (tmp_path / "run.py").write_text(
        "from clp_basicsr.hosts.import_hook import when_imported\n"
        "first, second = (lambda module: module.done.append(1)), (lambda module: module.done.append(2))\n"
        "for action in (first, second, first):\n"
        "    when_imported('late', action)\n"
        "import late\n"
        "assert late.done == [1, 2], late.done\n"
    )
    succeeded(python("run.py", folder=tmp_path))
