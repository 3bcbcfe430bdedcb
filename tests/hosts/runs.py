"""BasicSR's pipelines, run in this process without leaving a trace in it, or in one of their own."""

import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import clp_basicsr
from hosts.options import Options, write

PACKAGE_ROOT = Path(clp_basicsr.__file__).parents[1]
TESTS = Path(__file__).parents[1]

SHIM_BY_HAND = """
import sys, types
from torchvision.transforms.functional import rgb_to_grayscale
module = types.ModuleType("torchvision.transforms.functional_tensor")
module.rgb_to_grayscale = rgb_to_grayscale
sys.modules[module.__name__] = module
"""


def train(folder: Path, options: Options, *flags: str) -> Path:
    """Run ``clp_basicsr.train`` in ``folder`` and return the folder of the experiment."""
    from clp_basicsr.train import main

    file = write(options, folder)
    with isolated(folder):
        main(["-opt", str(file), *flags])
    return folder / "experiments" / str(options["name"])


@contextmanager
def isolated(folder: Path) -> Iterator[None]:
    """Work in ``folder``; put back what BasicSR changes in a process: its logger, cwd, random states."""
    before, numpy_state, random_state = Path.cwd(), np.random.get_state(), random.getstate()
    benchmark, threads = torch.backends.cudnn.benchmark, torch.get_num_threads()
    _forget_logger()  # somebody may have asked for it outside of a run: it would have no file in this one
    os.chdir(folder)
    torch.set_num_threads(1)  # quicker than two for nets this small, and the same sums every time
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        os.chdir(before)
        np.random.set_state(numpy_state)
        random.setstate(random_state)
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(threads)
        _forget_logger()


def _forget_logger() -> None:
    from basicsr.utils.logger import initialized_logger

    logger = logging.getLogger("basicsr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    initialized_logger.clear()


def python(
    *arguments: str, folder: Path, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` in ``folder``; modules in ``path`` come before installed ones."""
    search = [str(path)] if path else []
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [*search, str(PACKAGE_ROOT), *inherited])),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )


def torchrun(*arguments: str, folder: Path, processes: int = 2) -> str:
    """Run ``torchrun ARGUMENTS`` in ``folder`` and return its error output; fail if any process failed."""
    command = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *arguments)
    run = python(*command, folder=folder, path=TESTS)
    succeeded(run)
    return run.stderr


def launch(module: str, options: Options, folder: Path, *flags: str, processes: int = 2) -> str:
    """Run a training module in ``folder`` as `torchrun` does."""
    command = ("-m", module, "-opt", str(write(options, folder)), "--launcher", "pytorch", *flags)
    return torchrun(*command, folder=folder, processes=processes)


def succeeded(run: subprocess.CompletedProcess[str]) -> str:
    """Return what the process printed; fail with its error output if it failed."""
    assert run.returncode == 0, f"{run.args}\n{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
    return run.stdout
