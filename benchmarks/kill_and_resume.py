"""Kill training runs with SIGKILL and resume each with --auto_resume, until they are done.

    python benchmarks/kill_and_resume.py

Beside the kills at random moments there are some as soon as a training state is begun. The images are small, the
files large, and every iteration saves, so that random ones hit the writing of a file too. All iterations see the
same batch: a run that was killed must end with the weights of one that was not, to the last bit. Exit code 1 if one
does not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from PIL import Image

import clp_basicsr.train
from clp_basicsr.demo.photos import photo

ITERATIONS = 12
EXPERIMENT = Path("experiments") / "killed"
OPTIONS = """
name: killed
model_type: ESRGANModel
scale: 4
num_gpu: 0
manual_seed: 0
datasets:
  train: {name: photo, type: PairedImageDataset, dataroot_gt: ../gt, dataroot_lq: ../lq, io_backend: {type: disk},
          gt_size: 16, use_hflip: false, use_rot: false, num_worker_per_gpu: 0, batch_size_per_gpu: 1,
          dataset_enlarge_ratio: 4, prefetch_mode: ~}
network_g: {type: RRDBNet, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 6, num_grow_ch: 32}
network_d: {type: UNetDiscriminatorSN, num_in_ch: 3, num_feat: 16}
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
train:
  ema_decay: 0.9
  optim_g: {type: Adam, lr: !!float 1e-4}
  optim_d: {type: Adam, lr: !!float 1e-4}
  scheduler: {type: MultiStepLR, milestones: [6], gamma: 0.5}
  total_iter: %d
  warmup_iter: -1
  pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
  perceptual_opt: {type: CLPLoss, model: vgg, weights: random, layer_weights: {relu1_2: 1.0}, loss_weight: !!float 1e-2}
  gan_opt: {type: GANLoss, gan_type: vanilla, loss_weight: !!float 5e-3}
logger: {print_freq: 1, save_checkpoint_freq: 1, use_tb_logger: true}
"""


def prepare(folder: Path) -> None:
    """Write one pair of the size of a training crop: whatever the order, every batch is the same."""
    image = Image.fromarray(photo("astronaut")[40:104, 160:224])
    for part, size in (("gt", 16), ("lq", 4)):
        (folder / part).mkdir()
        image.resize((size, size), Image.Resampling.BOX).save(folder / part / "astronaut.png")


def train(folder: Path) -> None:
    """``python -m clp_basicsr.train -opt options.yml --auto_resume`` in ``folder``, in a process of its own."""
    os.chdir(folder)
    with Path("output.txt").open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    torch.set_num_threads(1)  # the same sums every time
    clp_basicsr.train.main(["-opt", "options.yml", "--auto_resume"])


def started(folder: Path) -> BaseProcess:
    # A process that has imported everything already starts the runs, so that kills fall into the training.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clp_basicsr.train", "basicsr.train"])
    if not folder.exists():
        folder.mkdir()
        (folder / "options.yml").write_text(OPTIONS % ITERATIONS)
    process = context.Process(target=train, args=(folder,))
    process.start()
    return process


def run(folder: Path, wait: Callable[[BaseProcess], object]) -> int:
    """Start or resume a run, kill it after ``wait`` if it is still running, and return its exit code."""
    process, start = started(folder), time.monotonic()
    wait(process)
    process.kill()
    process.join()
    assert process.exitcode is not None
    # BasicSR names logs and archived folders by the second, which a process that has to import cannot reach.
    time.sleep(max(0.0, start + 1.5 - time.monotonic()))
    return process.exitcode


def until_a_state_is_begun(process: BaseProcess, experiment: Path) -> None:
    """Wait until the process has begun to write a training state, by whatever name."""
    before = state_files(experiment)
    while process.is_alive() and not state_files(experiment) - before:
        time.sleep(0.001)


def state_files(experiment: Path) -> set[tuple[str, int]]:
    """Return names and times of the files beside the training states."""
    found = set()
    for path in experiment.glob("training_states/*"):
        with suppress(FileNotFoundError):  # it has just got another name
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def state_of(experiment: Path, since: float = 0) -> tuple[int, list[str]]:
    """Return the iteration of the newest training state, and the names of unfinished files written ``since``."""
    newest = max((int(path.stem) for path in experiment.glob("training_states/*.state")), default=0)
    unfinished = [path.name for path in experiment.glob("*/*.unfinished") if path.stat().st_mtime >= since]
    return newest, unfinished


def check_finished(folder: Path, exit_code: int, reference: Path) -> None:
    """Compare what a run left with what the run that was never killed left."""
    output = (folder / "output.txt").read_text()
    assert exit_code == 0, output[-3000:]
    assert "is skipped" not in output, output
    experiment, expected = (each / EXPERIMENT for each in (folder, reference))
    assert state_of(experiment) == (ITERATIONS, [])
    logged = [int(number) for number in re.findall(r"iter:\s*(\d+), lr:", output)]
    assert set(logged) == set(range(1, ITERATIONS + 1))
    assert logged[-1] == ITERATIONS
    for name in ("models/net_g_latest.pth", "models/net_d_latest.pth", f"training_states/{ITERATIONS}.state"):
        ends, should_end = (torch.load(each / name, weights_only=True) for each in (experiment, expected))
        for part in should_end.keys() - {"epoch"}:  # BasicSR starts an interrupted epoch again
            torch.testing.assert_close(ends[part], should_end[part], rtol=0, atol=0)


def kill_and_resume(workplace: Path, kills: list[str], moments: random.Random) -> str:
    """Kill in this order, in as many trainings as that takes; return what there is to say about it."""
    prepare(workplace)
    reference = workplace / "never_killed"
    run(reference, lambda process: None)  # the process that starts all others has imported everything after this
    start = time.monotonic()
    exit_code = run(reference, BaseProcess.join)
    duration = time.monotonic() - start
    check_finished(reference, exit_code, reference)
    print(f"a run of {ITERATIONS} iterations that is not killed: {duration:.1f} s", flush=True)
    done = while_saving = trainings = 0
    while done < len(kills):
        trainings += 1
        folder = workplace / f"training_{trainings}"
        experiment = folder / EXPERIMENT
        exit_code = -signal.SIGKILL
        while exit_code == -signal.SIGKILL:
            began = time.time()
            if done == len(kills):
                exit_code = run(folder, BaseProcess.join)
            elif kills[done] == "state begun":
                exit_code = run(folder, partial(until_a_state_is_begun, experiment=experiment))
            else:
                exit_code = run(folder, partial(BaseProcess.join, timeout=moments.uniform(0, duration / 2)))
            if exit_code == -signal.SIGKILL:
                done += 1
                iteration, unfinished = state_of(experiment, began)
                while_saving += bool(unfinished)
                print(f"kill {done:2} ({kills[done - 1]}): newest state {iteration:2}", *unfinished, flush=True)
        check_finished(folder, exit_code, reference)
        shutil.rmtree(folder)
        print(f"training {trainings} ended as the one that was never killed", flush=True)
    return f"{done} kills, {while_saving} of them inside the writing of a file; {trainings} trainings, all ended alike"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="at random moments (default: %(default)s)")
    parser.add_argument("--aimed", type=int, default=10, help="when a state is begun (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and order (default: %(default)s)")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    kills = ["random"] * options.kills + ["state begun"] * options.aimed
    moments.shuffle(kills)
    with tempfile.TemporaryDirectory() as workplace:
        print(kill_and_resume(Path(workplace), kills, moments))


if __name__ == "__main__":
    main()
