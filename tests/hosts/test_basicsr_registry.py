"""Registering again changes nothing; failing to register changes nothing either."""

import importlib
from pathlib import Path

import pytest
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import LOSS_REGISTRY

import clp_basicsr
from clp_basicsr.hosts.basicsr import CLPLoss
from hosts.options import train_options, write
from hosts.records import CLP_KEYS, log_entries
from hosts.runs import python, succeeded


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


@pytest.mark.parametrize("module", ["clp_basicsr", "clp_basicsr.hosts.basicsr"])
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
