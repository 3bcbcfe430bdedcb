"""Registering again changes nothing; failing to register changes nothing either."""

import importlib
from pathlib import Path

import pytest
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import LOSS_REGISTRY

import clp_basicsr
from clp_basicsr.hosts.basicsr import CLPLoss
from hosts.options import PERCEPTUAL, train_options, write
from hosts.records import CLP_KEYS, log_entries
from hosts.runs import SHIM_BY_HAND, python, succeeded


def test_the_registered_class() -> None:
    registered = LOSS_REGISTRY.get("CLPLoss")
    assert registered is CLPLoss
    assert issubclass(registered, clp_basicsr.CLPLoss)


def test_again_and_again() -> None:
    before, hooks = dict(iter(LOSS_REGISTRY)), (BaseModel.__init__, BaseModel.reduce_loss_dict)
    clp_basicsr.register()
    clp_basicsr.register()
    importlib.reload(clp_basicsr)
    assert dict(iter(LOSS_REGISTRY)) == before
    assert (BaseModel.__init__, BaseModel.reduce_loss_dict) == hooks


def test_taken_name(monkeypatch: pytest.MonkeyPatch) -> None:
    other = type("CLPLoss", (), {"__module__": "somebody"})
    monkeypatch.setitem(LOSS_REGISTRY._obj_map, "CLPLoss", other)
    before = dict(iter(LOSS_REGISTRY))
    with pytest.raises(ValueError, match=r"CLPLoss.*somebody"):
        clp_basicsr.register()
    assert dict(iter(LOSS_REGISTRY)) == before
    with pytest.raises(ValueError, match=r"CLPLoss.*somebody"):
        importlib.reload(clp_basicsr)
    assert dict(iter(LOSS_REGISTRY)) == before


@pytest.mark.parametrize("name", ["PairedNegativeDataset", "calculate_clp_pull"])
def test_taken_names_of_the_others(name: str, tmp_path: Path) -> None:
    registry = "DATASET_REGISTRY" if name[0].isupper() else "METRIC_REGISTRY"
    script = f"""
from basicsr.utils.registry import {registry}
{registry}.register(type({name!r}, (), {{"__module__": "somebody"}}))
import clp_basicsr
clp_basicsr.register()
"""
    said = python("-c", f"{SHIM_BY_HAND}\n{script}", folder=tmp_path).stderr.splitlines()[-1]
    assert f"ValueError: BasicSR's {registry} must be free to take the name '{name}', but it holds somebody." in said


FORGET = "for each in [each for each in sys.modules if each.split('.')[0] == {!r}]: del sys.modules[each]"


@pytest.mark.parametrize(
    "imports",
    [
        f"import clp_basicsr\n{FORGET.format('clp_basicsr')}\nimport clp_basicsr\nimport basicsr",
        f"import clp_basicsr, basicsr\n{FORGET.format('clp_basicsr')}",
        f"import clp_basicsr, basicsr\n{FORGET.format('basicsr')}",
    ],
    ids=["twice before BasicSR", "again after BasicSR", "BasicSR again"],
)
def test_training_after_an_import_that_was_forgotten(imports: str, triples: Path, tmp_path: Path) -> None:
    """As where a notebook or a test runner clears modules."""
    data = {"type": "PairedNegativeDataset", "dataroot_neg": str(triples / "neg")}
    options = train_options(triples, perceptual={**PERCEPTUAL, "negatives": ["lr", "files"]}, total_iter=1)
    options["datasets"]["train"] |= data
    file = write(options, tmp_path)
    script = f"import sys\n{imports}\nimport clp_basicsr.train\nclp_basicsr.train.main(['-opt', {str(file)!r}])"
    succeeded(python("-c", script, folder=tmp_path))
    assert set(log_entries(tmp_path / "experiments" / "tiny")[1]) >= {"l_percep", *CLP_KEYS}


@pytest.mark.parametrize(
    "module", ["clp_basicsr", "clp_basicsr.hosts.basicsr", "clp_basicsr.hosts.basicsr_dataset", "clp_basicsr.loss"]
)
def test_training_after_a_reload(module: str, pairs: Path, tmp_path: Path) -> None:
    """As in a notebook with autoreload."""
    file = write(train_options(pairs, total_iter=1), tmp_path)
    script = f"""
import importlib, clp_basicsr, clp_basicsr.train
clp_basicsr.register()
importlib.reload(importlib.import_module({module!r}))
clp_basicsr.register()
clp_basicsr.train.main(["-opt", {str(file)!r}])
"""
    succeeded(python("-c", script, folder=tmp_path))
    assert set(log_entries(tmp_path / "experiments" / "tiny")[1]) >= {"l_percep", *CLP_KEYS}
