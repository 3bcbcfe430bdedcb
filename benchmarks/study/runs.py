"""Training and judging, each run in a process of its own; what is finished is not done again."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from benchmarks.study import data, options
from benchmarks.study.images import pairs
from benchmarks.study.judges import Pair, check_files, judged
from benchmarks.study.matching import device, load_network, matched_weights
from benchmarks.study.matrix import START, Matrix, Run
from benchmarks.study.results import Results, Scores
from clp_basicsr.hosts import basicsr_launch
from clp_basicsr.hosts.basicsr import register
from clp_basicsr.hosts.checkpoints import states
from clp_basicsr.whole_files import write_text


def train_all(matrix: Matrix, study: Path, jobs: int) -> None:
    """Train every run of the matrix and judge it on the development photos.

    Args:
        matrix: what to train.
        study: where everything is written.
        jobs: processes at a time, of one thread each where there is no GPU.

    Raises:
        FileNotFoundError: if a judge's file is not in the folder.
        ValueError: if a finished run was made with other options than the matrix has now.
        RuntimeError: if a run fails.
    """
    check_files(study, matrix.judges)
    register()
    folders = data.folders(matrix, study)
    images = {seed: _order(folders["train"], study, seed) for seed in {0, *matrix.seeds}}
    _write_options(study, START, options.start_options(matrix, folders["train"], images[0]))
    _in_processes("start", [START] * (not _trained(study, START)), 1, lambda name: (_train, study, name))
    weights = matched_weights(matrix, folders["train"], study / options.checkpoint(START), study)
    todo = []
    for run in matrix.runs():
        weight = run.strength * weights.get(run.arm, 0.0)
        _write_options(study, run.name, options.run_options(matrix, run, weight, folders["train"], images[run.seed]))
        if not _judged_by_all(matrix, scores_file(study, "development", run.name)):
            todo.append(run.name)
    _in_processes("runs", todo, jobs, lambda name: (_train_and_judge, matrix, study, folders["development"], name))


def judge_test_photos(matrix: Matrix, study: Path, jobs: int) -> None:
    """Judge every trained run, and the start, on the test photos: once, when nothing is left to choose."""
    check_files(study, matrix.judges)
    register()
    folder = data.folders(matrix, study)["test"]
    names = [START, *(run.name for run in matrix.runs())]
    todo = [
        name for name in names if _trained(study, name) and not _judged_by_all(matrix, scores_file(study, "test", name))
    ]
    _in_processes("test photos", todo, jobs, lambda name: (_judge, matrix, study, folder, "test", name))


def scores_file(study: Path, part: str, name: str) -> Path:
    return study / "scores" / part / f"{name}.json"


def _judged_by_all(matrix: Matrix, file: Path) -> bool:
    if not file.exists():
        return False
    scores: Scores = json.loads(file.read_text())
    return all(judges.keys() >= set(matrix.judges) for judges in scores.values())


def read_scores(study: Path, part: str, runs: Iterable[Run]) -> Results:
    """Return the scores of those runs that have been judged, by the judges that all of them have had."""
    files = {run: scores_file(study, part, run.name) for run in runs}
    found: Results = {run: json.loads(path.read_text()) for run, path in files.items() if path.exists()}
    each = [numbers for scores in found.values() for numbers in scores.values()]
    common = [judge for judge in each[0] if all(judge in numbers for numbers in each)] if each else []
    return {
        run: {photo: {judge: numbers[judge] for judge in common} for photo, numbers in scores.items()}
        for run, scores in found.items()
    }


def super_resolved(matrix: Matrix, study: Path, name: str, lr: torch.Tensor) -> torch.Tensor:
    """Return what a finished run's network makes of LR ``(1, 3, h, w)``."""
    network = load_network(matrix, study / options.checkpoint(name))
    with torch.inference_mode():
        sr: torch.Tensor = network(lr.to(device()))
    return sr.clamp(0, 1)


def _order(train: Mapping[str, Path], study: Path, seed: int) -> int:
    return data.write_order(train["gt"], seed, study / "orders" / f"{seed}.txt")


def _trained(study: Path, name: str) -> bool:
    return (study / options.checkpoint(name)).exists()


def _write_options(study: Path, name: str, content: Mapping[str, Any]) -> None:
    path = study / "options" / f"{name}.yml"
    if _trained(study, name) and yaml.safe_load(path.read_text()) != content:
        raise ValueError(
            f"The matrix says something else of '{name}' than what it was trained with, see '{path}'. "
            f"Use another folder, or remove '{study / 'experiments' / name}' and its scores."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")


def _in_processes(title: str, names: list[str], jobs: int, task: Callable[[str], tuple[Any, ...]]) -> None:
    # A server that has imported everything starts them; it must not touch the GPU.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.study.runs", "clp_basicsr.train", "basicsr.train"])
    waiting, running, failed = list(names), dict[Any, tuple[str, BaseProcess]](), list[str]()
    with tqdm(total=len(names), desc=title, unit="run", dynamic_ncols=True, disable=not names) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    name = waiting.pop(0)
                    process: BaseProcess = context.Process(target=_child, args=task(name))
                    process.start()
                    running[process.sentinel] = name, process
                bar.set_postfix_str(", ".join(name for name, _ in running.values()))
                for sentinel in wait(list(running)):
                    name, ended = running.pop(sentinel)
                    ended.join()
                    failed += [name] * (ended.exitcode != 0)
                    bar.update()
        finally:
            for _, process in running.values():  # no daemons, which may not have processes that load data
                process.terminate()
    if failed:
        raise RuntimeError(
            f"These runs failed; what they printed is in `logs`, and the same command repeats them: {failed}"
        )


def _child(task: Callable[..., None], *arguments: Any) -> None:
    """Run a task, and end with the process that started it, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    # For those that load data, as in any run of BasicSR's: from a server they would import BasicSR without clp_basicsr.
    multiprocessing.set_start_method("fork", force=True)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # the same sums whatever runs beside it
    task(*arguments)


def _train(study: Path, name: str) -> None:
    experiment = study / "experiments" / name
    if not states(experiment / "training_states"):
        shutil.rmtree(experiment, ignore_errors=True)  # killed before its first checkpoint: the same again
    with _printing_to(study / "logs" / f"{name}.txt"):
        os.chdir(study)
        warnings.simplefilter("ignore")
        arguments = ["--import", "benchmarks.study.losses", "-opt", f"options/{name}.yml", "--auto_resume"]
        basicsr_launch.train(arguments)


def _train_and_judge(matrix: Matrix, study: Path, folder: Mapping[str, Path], name: str) -> None:
    if not _trained(study, name):
        _train(study, name)
    _judge(matrix, study, folder, "development", name)


def _judge(matrix: Matrix, study: Path, folder: Mapping[str, Path], part: str, name: str) -> None:
    register()
    scores: Scores = {}
    with _printing_to(study / "logs" / f"{name}.txt"):
        for photo, (target, lr) in pairs(folder).items():
            sr = super_resolved(matrix, study, name, lr)
            scores[photo] = judged(Pair(sr, target.to(sr.device), matrix.scale, matrix.features, study), matrix.judges)
    path = scores_file(study, part, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(scores, indent=1))


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Send what this process prints, and its errors, to a file: for good, since the process is the run's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        yield
