"""``clp-basicsr bench``: flags and the order of things."""

from __future__ import annotations

import argparse
import gc
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from clp_basicsr import arguments
from clp_basicsr.bench import profiling, report, scaling, training
from clp_basicsr.bench.contenders import DEFAULT, Contender, build
from clp_basicsr.bench.measuring import SCALE, Spread, peak_bytes, rounds, spread
from clp_basicsr.devices import chosen_device
from clp_basicsr.pictures.canvas import check_matplotlib
from clp_basicsr.pictures.files import make_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--contenders",
        nargs="+",
        help="what to measure, such as vgg, vgg:bfloat16, perceptual (default: a dozen)",
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[2], help="batch sizes (default: 2)")
    parser.add_argument("--size", nargs="+", type=int, default=[128], help="crop sizes in pixels (default: 128)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds in which all take turns (default: 10)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU (default: 1)")
    parser.add_argument("--device", help="default: cuda where there is a GPU, else cpu")
    parser.add_argument("--step", choices=list(training.NETWORKS), help="a whole training step of this network instead")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--count", action="store_true", help="count arithmetic and memory instead, for any device")
    mode.add_argument("--profile", action="store_true", help="show where the time of a step goes instead")
    mode.add_argument("--scaling", action="store_true", help="time against batch, crop, negatives, layers instead")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench"), help="folder of results (default: bench)")


def run(options: argparse.Namespace) -> None:
    """Measure, print a table, and write JSON and a plot; or print a profile; or count, in seconds and on any device.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: for a contender, a device, a folder or a number that is not possible.
    """
    _check(options)
    if options.count:
        _count(options)
        return
    if not options.profile:
        check_matplotlib()
    device = chosen_device(options.device, kinds=("cpu", "cuda"))  # clocks and memory are theirs
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True  # as BasicSR's train_pipeline does
    if options.profile:
        _profile(options, device)
        return
    make_folder(options.output, "--output")
    if options.scaling:
        _scale(options, device)
    else:
        _time(options, device)


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be meant, and fill in the contenders that were not named."""
    if options.step and (options.profile or options.scaling):
        raise ValueError("Flag `--step` must stand alone or beside `--count`; the others look at the loss itself.")
    if options.scaling:
        _check_scaling(options)
    options.contenders = options.contenders or list(DEFAULT)
    for name in ("batch", "size"):
        setattr(options, name, [arguments.count(name, each) for each in getattr(options, name)])
    for name in ("threads", "rounds"):
        arguments.count(name, getattr(options, name))
    if options.step and any(size % SCALE for size in options.size):
        raise ValueError(
            f"Argument `size` must be a multiple of {SCALE} with `--step`, whose networks enlarge that many "
            f"times, but got {options.size}."
        )


def _check_scaling(options: argparse.Namespace) -> None:
    given = {"contenders": options.contenders, "batch": options.batch[1:], "size": options.size[1:]}
    for name, more in given.items():
        if more:
            raise ValueError(
                f"Flag `--scaling` varies one `vgg` around one batch and one size by itself, but got more with "
                f"`--{name}`: {getattr(options, name)}. {'Leave it out' if name == 'contenders' else 'Give one'}."
            )


def _time(options: argparse.Namespace, device: torch.device) -> None:
    about = _announced(device)
    contenders = _built(options.contenders, device)
    rows = list[report.Row]()
    try:
        for batch, size in _settings(options):
            rows += _rows(contenders, batch, size, options, device)
    finally:  # the last setting may be too large for the memory
        if rows:
            _write(rows, about, options.output, _name(options))


def _write(rows: list[report.Row], about: dict[str, Any], folder: Path, name: str) -> None:
    print(report.table(rows))
    report.write_json(folder / f"{name}.json", about, rows)
    print(f"numbers  {folder / name}.json")
    if report.compared(rows):
        report.plot(folder / f"{name}.png", rows)
        print(f"picture  {folder / name}.png")


def _scale(options: argparse.Namespace, device: torch.device) -> None:
    about, batch, size = _announced(device), options.batch[0], options.size[0]
    curves = scaling.measure(batch, size, options.rounds, device)
    report.write_json(options.output / "scaling.json", about, [], curves=curves)
    caption = f"vgg, batch {batch}, {size} px, {about['device']}, {about['date']}"
    scaling.plot(options.output / "scaling.png", curves, caption)


def _announced(device: torch.device) -> dict[str, Any]:
    about = report.environment(device)
    print(", ".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    return about


def _profile(options: argparse.Namespace, device: torch.device) -> None:
    for contender in _built(options.contenders, device):
        for batch, size in _settings(options):
            print(profiling.report(contender, batch, size, device), flush=True)


def _count(options: argparse.Namespace) -> None:
    from clp_basicsr.bench import counting

    make_folder(options.output, "--output")
    cpu = torch.device("cpu")
    compiled = [each for each in options.contenders if "compile" in each.split(":")]
    for name in compiled:
        print(f"{name} is left out: only what eager code asks for is counted", file=sys.stderr)
    contenders = _built([each for each in options.contenders if each not in compiled], cpu)
    rows = counting.rows(contenders, options.step, _settings(options))
    print(counting.table(rows))
    counts = [asdict(row) for row in rows]
    report.write_json(options.output / f"{_name(options)}_counted.json", report.environment(cpu), [], counts=counts)


def _settings(options: argparse.Namespace) -> list[tuple[int, int]]:
    return [(batch, size) for size in options.size for batch in options.batch]


def _name(options: argparse.Namespace) -> str:
    return f"step_{options.step}" if options.step else "losses"


def _built(names: list[str], device: torch.device) -> list[Contender]:
    contenders = []
    for name in names:
        try:
            contenders.append(build(name, device))
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    if not contenders:
        raise ValueError(f"Argument `contenders` must name at least one that can be measured, but got {names}.")
    return contenders


def _rows(
    contenders: list[Contender], batch: int, size: int, options: argparse.Namespace, device: torch.device
) -> list[report.Row]:
    network = training.build_network(options.step).to(device) if options.step else None
    calls, rivals = training.calls(options.step, network, contenders, batch, size, device)
    seconds = rounds(calls, options.rounds, 2, device)
    # Of a whole step a GPU does not take all that the CPU would be ahead with.
    can_wait = device.type == "cuda" and not options.step
    queued = rounds(calls, options.rounds, 0, device, queued=True) if can_wait else {}
    gc.collect()
    peaks = {name: peak_bytes(call, device) for name, call in calls.items()}
    rows = []
    for name, own in seconds.items():
        rival = rivals[name]
        ratio, ratio_queued = _ratio(seconds, name, rival), _ratio(queued, name, rival)
        memory = peaks[name] / peaks[rival] if rival in peaks else None
        rows.append(report.Row(name, batch, size, spread(own), rival, ratio, peaks[name], memory, ratio_queued))
    return rows


def _ratio(seconds: dict[str, list[float]], name: str, rival: str) -> Spread | None:
    if rival not in seconds:
        return None
    return spread([mine / theirs for mine, theirs in zip(seconds[name], seconds[rival])])
