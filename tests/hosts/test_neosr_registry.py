"""Registering the loss with neosr 0.1.0: by a call, or by a file in its folder of losses; wholly or not at all."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from clp_basicsr.hosts.neosr import CLPLoss, clp_loss, register
from hosts.neosr_runs import ONE_LINE, batches, build, needs_neosr, neosr, neosr_options, registered, toml, train
from hosts.records import CLP_KEYS
from hosts.runs import python, succeeded

__all__ = ["neosr", "registered"]


@pytest.mark.skipif(importlib.util.find_spec("neosr") is not None, reason="neosr is installed")
def test_without_neosr() -> None:
    with pytest.raises(ImportError, match="neosr is not installed"):
        register()


@needs_neosr
@pytest.mark.usefixtures("neosr")
def test_again_and_again() -> None:
    from neosr.models.base import base
    from neosr.models.image import image
    from neosr.utils.logger import MessageLogger
    from neosr.utils.registry import LOSS_REGISTRY

    def state() -> tuple[object, ...]:
        seams = base.reduce_loss_dict, image.optimize_parameters, MessageLogger.__call__
        return dict(iter(LOSS_REGISTRY)), seams

    before = state()
    register()
    register()
    assert state() == before
    assert LOSS_REGISTRY.get("CLPLoss") is CLPLoss
    assert LOSS_REGISTRY.get("clp_loss") is clp_loss


@pytest.fixture
def nothing_registered(registered: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """neosr's losses as they were before `register`."""
    from neosr.utils.registry import LOSS_REGISTRY

    for name in ("CLPLoss", "clp_loss"):
        monkeypatch.delitem(LOSS_REGISTRY._obj_map, name)
    return LOSS_REGISTRY._obj_map


@needs_neosr
@pytest.mark.parametrize("name", ["CLPLoss", "clp_loss"])
def test_taken_name(name: str, nothing_registered: dict[str, object]) -> None:
    nothing_registered[name] = type(name, (), {"__module__": "somebody"})
    before = dict(nothing_registered)
    try:
        with pytest.raises(ValueError, match=rf"neosr's LOSS_REGISTRY.*'{name}'.*somebody"):
            register()
        assert nothing_registered == before
    finally:
        del nothing_registered[name]


@needs_neosr
def test_without_an_option_file_neosr_says_so(tmp_path: Path) -> None:
    """The import of this package is not in the way of programs that have neosr installed and do not use it."""
    script = "import sys, clp_basicsr, clp_basicsr.hosts.neosr as host; assert 'neosr' not in sys.modules; "
    run = python("-c", script + "host.register()", folder=tmp_path)
    assert "ValueError" in run.stderr
    assert "-opt /path/to/config.toml" in run.stderr


@needs_neosr
def test_one_line_in_a_checkout(tmp_path: Path) -> None:
    """neosr finds the file and imports it in the middle of its own import."""
    specification = importlib.util.find_spec("neosr")
    assert specification is not None
    assert specification.submodule_search_locations is not None
    shutil.copytree(specification.submodule_search_locations[0], tmp_path / "neosr")
    (tmp_path / "neosr/losses/clp_loss.py").write_text(ONE_LINE)
    (tmp_path / "options.toml").write_text(toml(neosr_options()))
    (tmp_path / "steps.py").write_text("""
import torch
from neosr.models import build_model
from neosr.models.base import base
from neosr.utils.options import parse_options
from hosts.neosr_runs import _on_cpu, batches, train

base.__init__ = _on_cpu(base.__init__)
options, _ = parse_options(".", is_train=True)
*_, log = train(build_model(options), batches(2))
import neosr
print(neosr.__file__, *log)
""")
    run = python("steps.py", "-opt", "options.toml", folder=tmp_path, path=Path(__file__).parents[1])
    source, *keys = succeeded(run).split()
    assert source.startswith(str(tmp_path))
    assert set(keys) == {"l_g_pix", "l_g_percep", "l_g_total", *CLP_KEYS}


@needs_neosr
@pytest.mark.usefixtures("neosr")
@pytest.mark.filterwarnings("ignore:weights=.random.")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_log_and_tensorboard(accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """neosr's own MessageLogger, called as train.py does; in the first iteration it divides by zero."""
    from neosr.utils import MessageLogger, get_root_logger, init_tb_logger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said: list[str] = []
    monkeypatch.setattr(get_root_logger(), "info", said.append)
    options = neosr_options(accumulate=accumulate)
    model, writer = build(options, tmp_path), init_tb_logger(str(tmp_path))
    logger = MessageLogger(options, writer)
    logger.start_iter = 0
    for current_iter, log in enumerate(train(model, batches(4 * accumulate)), 1):
        if current_iter % accumulate == 0 and current_iter >= 2 * accumulate:
            iteration = current_iter / accumulate
            logger({"epoch": 0, "iter": iteration, "lrs": model.get_current_learning_rate(), **log})
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"losses/l_g_percep", *CLP_KEYS, "clp/relu1_2/pull", "clp/relu2_2/overshoot", "clp/gradient_ratio"} <= tags
    assert [event.step for event in events.Scalars("clp/relu1_2/pull")] == [2, 3, 4]
    assert all(f"[ {key}: " in said[-1] for key in CLP_KEYS)
