"""``clp-basicsr demo``: data set, training through BasicSR's pipeline, validation, picture."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from clp_basicsr.demo.comparison import Comparison, compare, draw
from clp_basicsr.demo.options import check_that_the_loss_is, experiment_name, options_text
from clp_basicsr.demo.photos import build_data_set
from clp_basicsr.demo.progress import watched
from clp_basicsr.hosts import basicsr_launch
from clp_basicsr.hosts.basicsr import register
from clp_basicsr.hosts.basicsr_network import load_network
from clp_basicsr.hosts.checkpoints import newest_whole
from clp_basicsr.loss import CLPLoss
from clp_basicsr.whole_files import whole_file

_DATA = Path("datasets/clp_demo")


def run(model: str, weights: str | None, iterations: int, *, fresh: bool) -> None:
    """Run the demo below the working directory and say where its results are.

    Args:
        model: the loss's network, as `CLPLoss` names it.
        weights: a path for `CLPLoss`, or None.
        iterations: length of the training.
        fresh: start anew; an earlier run is kept under another name. Otherwise it is continued.

    Raises:
        ImportError: if the extra ``demo`` is not installed.
        FileNotFoundError: if the network's weights cannot be had.
        ValueError: if there is a run of another loss to continue, or one whose option file is damaged.
        UntrustedCheckpointError: if its checkpoint holds more than torch reads unasked.
        KeyboardInterrupt: after Ctrl-C, when the state has been saved.
    """
    register()
    # Before anything is written: what is missing or misspelt shows here.
    loss = CLPLoss(model=model, weights=weights)
    build_data_set(_DATA)
    name = experiment_name(model)
    folder, options = Path("experiments") / name, _DATA / f"{name}.yml"
    text = options_text(model, weights, iterations)
    opt = yaml.safe_load(text)
    done = 0 if fresh else _iterations_done(folder, opt)
    if done:
        check_that_the_loss_is(text, folder / options.name)  # BasicSR's copy
    options.write_text(text, encoding="utf-8")
    if done >= iterations:
        _provide_latest(folder / "models", done)
        print(f"The run in '{folder}' has its {done} iterations. To start anew: clp-basicsr demo --fresh")
    else:
        print(_announcement(folder, done, iterations, fresh))
        _train(options, folder, done, iterations)
        done = _iterations_done(folder, opt)
    network = load_network(opt, folder / "models" / f"net_g_{done}.pth")
    _report(options, folder, loss, network)


def _provide_latest(models: Path, done: int) -> None:
    """Write what BasicSR writes at the end of a run, which one that was stopped has not come to."""
    with whole_file(models / "net_g_latest.pth") as file:
        file.write((models / f"net_g_{done}.pth").read_bytes())


def _announcement(folder: Path, done: int, iterations: int, fresh: bool) -> str:
    if done:
        return f"Continuing the run in '{folder}' at iteration {done} of {iterations}. (To start anew: --fresh)"
    earlier = f" The earlier run stays, as '{folder}_archived_…'." if folder.exists() else ""
    return f"Training {iterations} iterations into '{folder}'. Ctrl-C saves; the same command continues.{earlier}"


def _train(options: Path, folder: Path, done: int, iterations: int) -> None:
    pipeline = importlib.import_module("basicsr.train")
    flags = ["--auto_resume"] if done else []
    with watched(pipeline, iterations, done, tensorboard=folder / "tb_logger"), warnings.catch_warnings():
        # The schedulers' advice on call order is about BasicSR's loop, which is as it is.
        warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")
        basicsr_launch.train(["-opt", str(options), *flags])


def _iterations_done(folder: Path, opt: Mapping[str, Any]) -> int:
    # Not net_g_latest.pth: a run that was killed when it had its iterations may not have got to it.
    path = {name: str(folder / name) for name in ("models", "training_states")}
    found = newest_whole({**opt, "path": path})
    return 0 if found is None else found[1]["iter"]


def _report(options: Path, folder: Path, loss: CLPLoss, network: nn.Module) -> None:
    comparisons = compare(network, loss, _DATA / "val")
    picture = folder / "comparison.png"
    draw(comparisons, picture, f"clp_basicsr demo: x4, held-out photos, {folder.name}")
    print(_summary(comparisons))
    print(
        f"\ncheckpoints   {folder / 'models'}"
        f"\npicture       {picture}"
        f"\nTensorBoard   tensorboard --logdir {folder / 'tb_logger'}"
        f"\noptions       {options}"
        f"\n\nYour own data: copy '{options}', change `dataroot_gt` and `dataroot_lq`, and run"
        "\n  clp-basicsr train -opt YOUR_COPY.yml"
    )


def _summary(comparisons: list[Comparison]) -> str:
    lines = ["\nheld-out photos (clp_pull: distance to GT in feature space, in units of the gap GT-LR)"]
    for comparison in comparisons:
        lines += [f"  {comparison.name:8} {name:8} {numbers}" for name, numbers in comparison.numbers.items()]
    return "\n".join(lines)
