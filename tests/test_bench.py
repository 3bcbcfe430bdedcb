"""`clp-basicsr bench`: what it measures is what it says, on tiny images."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from clp_basicsr.bench import counting, report
from clp_basicsr.bench.contenders import Contender, build
from clp_basicsr.bench.counting import Row
from clp_basicsr.bench.measuring import Spread, images, peak_bytes, rounds, spread, training_step
from clp_basicsr.cli import main

CPU = torch.device("cpu")
needs_basicsr = pytest.mark.skipif(importlib.util.find_spec("basicsr") is None, reason="BasicSR is not installed")


@pytest.fixture(autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@needs_basicsr
def test_table_json_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--batch", "1", "--size", "32", "--rounds", "2", "--output", str(tmp_path), "--device", "cpu"]
    assert main(["bench", "--contenders", "perceptual", "random_convs", "random_convs:chunk=1", *flags]) == 0
    printed = capsys.readouterr().out
    assert "| random_convs:chunk=1 | 1, 32 |" in printed
    results = json.loads((tmp_path / "losses.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["perceptual", "random_convs", "random_convs:chunk=1"]
    assert results["rows"][0]["ratio"] == {"low": 1.0, "median": 1.0, "high": 1.0}
    assert results["torch"] == torch.__version__
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


@needs_basicsr
def test_a_whole_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--batch", "1", "--size", "32", "--rounds", "1", "--output", str(tmp_path), "--device", "cpu"]
    assert main(["bench", "--step", "srvgg", "--contenders", "random_convs", *flags]) == 0
    assert "| srvgg + random_convs | 1, 32 |" in capsys.readouterr().out


def test_a_contender_that_is_not_installed_is_left_out_in_the_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    flags = ["--batch", "1", "--size", "32", "--rounds", "1", "--output", str(tmp_path), "--device", "cpu"]
    assert main(["bench", "--contenders", "lpips", "random_convs", *flags]) == 0
    assert "lpips is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["lpips"], "must name at least one that can be measured, but got ['lpips']"),
        (["vgg:compile", "--count"], "must name at least one"),
        (["lpips", "--profile"], "must name at least one"),
    ],
)
def test_nothing_is_left(
    flags: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert main(["bench", "--output", str(tmp_path / "bench"), "--contenders", *flags]) == 1
    assert said in capsys.readouterr().err


@needs_basicsr
@pytest.mark.parametrize("contender", ["perceptual", "three_pass:vgg", "vgg"])
@pytest.mark.parametrize("mode", [[], ["--count"]])
def test_crops_too_small_for_vgg(
    contender: str, mode: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--size", "8", "--rounds", "1", "--output", str(tmp_path), *mode]
    assert main(["bench", "--contenders", contender, *flags]) == 1
    assert "must be at least 16x16 pixels for `" in capsys.readouterr().err


def test_channels_last_is_the_layout_of_the_weights() -> None:
    for name in ("random_convs:channels_last", "random_convs:bfloat16:channels_last"):
        kernel = build(name, CPU).network.get_buffer("extractor.network.conv1.weight")
        assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert build("random_convs", CPU).network.get_buffer("extractor.network.conv1.weight").is_contiguous()


@pytest.mark.parametrize(
    "name",
    [
        "vgg:fast",
        "three_pass:resnet",
        "vg19",
        "vgg:chunk=few",
        "torchvision:",
        "timm:resnet10t:fast",
        "vgg:bfloat16:float16",
    ],
)
def test_unknown_contenders_are_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--contenders", name, "--output", str(tmp_path)]) == 1
    assert "must " in capsys.readouterr().err


def test_networks_of_packages_are_contenders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["torchvision:resnet18", "torchvision:resnet18:chunk=1"]
    flags = ["--batch", "1", "--size", "32", "--rounds", "1", "--output", str(tmp_path), "--device", "cpu"]
    assert main(["bench", "--contenders", *names, *flags]) == 0
    assert [row["name"] for row in json.loads((tmp_path / "losses.json").read_text())["rows"]] == names


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--device", "gpu"], "Argument `device` must be one of ['cpu'] on this machine, but got 'gpu'"),
        (["--device", "cuda"], "must be one of ['cpu']"),
        (["--output", "file"], "Flag `--output` must name a folder, or a place where one can be made, but got 'file'"),
        (["--output", "file/bench", "--count"], "must name a folder"),
        (["--step", "srvgg", "--profile"], "Flag `--step` must stand alone or beside `--count`"),
        (["--step", "srvgg", "--size", "32", "50"], "Argument `size` must be a multiple of 4 with `--step`"),
        (["--step", "srvgg", "--size", "50", "--count"], "but got [50]"),
        (["--scaling"], "but got more with `--contenders`: ['random_convs']"),
    ],
)
def test_flags_that_cannot_be_meant(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["bench", "--contenders", "random_convs", *flags]) == 1
    assert said in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_was_measured_before_a_setting_that_fails_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--batch", "1", "--size", "32", "8", "--rounds", "1", "--output", str(tmp_path), "--device", "cpu"]
    assert main(["bench", "--contenders", "vgg", *flags]) == 1
    printed = capsys.readouterr()
    assert "| vgg | 1, 32 |" in printed.out
    assert "at least 16x16 pixels" in printed.err
    assert [row["size"] for row in json.loads((tmp_path / "losses.json").read_text())["rows"]] == [32]


def test_scaling_takes_one_batch_and_one_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--scaling", "--size", "32", "64"]) == 1
    assert "but got more with `--size`: [32, 64]" in capsys.readouterr().err


def test_one_thing_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--count", "--scaling"])
    assert "not allowed with" in capsys.readouterr().err


@needs_basicsr
def test_perceptual_loss_has_our_vgg_in_it() -> None:
    """Same weights, so that both do the same arithmetic on the same numbers."""
    sr, target, lr = images(1, 32, CPU)
    contender = build("perceptual", CPU)
    ours = build("vgg", CPU).network.get_submodule("extractor")
    (features, expected) = (ours(each) for each in (sr, target))
    weights = ours.default_layer_weights
    value = sum(weight * nn.functional.l1_loss(features[name], expected[name]) for name, weight in weights.items())
    torch.testing.assert_close(contender.step(sr, target, lr), torch.as_tensor(value), rtol=1e-4, atol=0)


def test_peak_counts_bytes_that_live_at_the_same_time() -> None:
    def call() -> None:
        first = torch.ones(1_000_000)
        second = first + 1  # both: 8 MB
        del first
        third = second + 1  # 8 MB again
        del second, third

    assert peak_bytes(call, CPU) == pytest.approx(8e6, rel=0.01)


def counted(*contenders: Contender, batch: int, size: int) -> dict[str, Row]:
    return {row.name: row for row in counting.rows(contenders, None, [(batch, size)])}


def test_a_convolution_is_counted_as_by_hand() -> None:
    """Forward, and backward to the image alone; the output is gone before there is a gradient."""
    network = nn.Conv2d(3, 8, 3, padding=1, bias=False).requires_grad_(False)

    def step(sr: Tensor, target: Tensor, lr: Tensor) -> Tensor:
        del target, lr
        value: Tensor = network(sr).sum()
        return value

    row = counted(Contender("conv", network, step), batch=2, size=16)["conv"]
    assert row.count.flops == 2 * (2 * 2 * 16 * 16 * 8 * 3 * 3 * 3)
    assert row.count.peak == 4 * (2 * 8 * 16 * 16 + 1)


@needs_basicsr
def test_what_is_counted_is_measured_too() -> None:
    """Beside what oneDNN's convolutions take for themselves, which depends on the CPU."""
    names = ("perceptual", "vgg", "efficientnet_lite0")
    rows = counted(*(build(name, CPU) for name in names), batch=1, size=128)
    measured = {name: peak_bytes(training_step(build(name, CPU), 1, 128, CPU), CPU) for name in names}
    for name in names:
        assert 0.98 * rows[name].count.peak <= measured[name] <= 1.25 * rows[name].count.peak, name
    assert measured["vgg"] <= 1.15 * measured["perceptual"]


@needs_basicsr
def test_arithmetic_is_three_passes_forward_and_one_back() -> None:
    rows = counted(*(build(name, CPU) for name in ("perceptual", "vgg", "three_pass:vgg")), batch=2, size=64)
    assert rows["vgg"].over is not None
    assert rows["vgg"].over[0] == pytest.approx(4 / 3, rel=1e-3)
    assert rows["vgg"].count.flops == pytest.approx(rows["three_pass:vgg"].count.flops, rel=1e-3)


def test_profile_prints_the_costliest_operations_and_the_whole_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And needs no matplotlib."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    flags = ["--batch", "1", "--size", "32", "--device", "cpu"]
    assert main(["bench", "--profile", "--contenders", "random_convs", *flags]) == 0
    printed = capsys.readouterr().out
    assert "aten::" in printed
    assert re.search(
        r"\nrandom_convs, batch 1, 32 px: a step takes [\d.]+ ms, operations of together [\d.]+ ms\n", printed
    )


def test_operations_are_what_writes_to_memory() -> None:
    values = torch.ones(3, 4)
    with counting.Tally() as tally:
        turned = values.t()[1:].reshape(-1)  # two views, and a copy
        turned.view(3, 3).add_(1)
        torch.empty(5).fill_(2)
        turned.sum()
    assert tally.operations == 4


@needs_basicsr
def test_memory_of_large_batches_is_below_the_bars() -> None:
    """With what a training has: the loss's default diagnostics, at their first and most expensive call."""
    perceptual = counted(build("perceptual", CPU), batch=16, size=256)["perceptual"].count.peak
    for name, bar in (("vgg", 1.15), ("vgg:bfloat16", 0.7), ("vgg:float16", 0.9)):
        loss = build(name, CPU, diagnostics=True).network
        mode = FakeTensorMode()
        counting.without_values(loss, mode)
        with mode:
            step = training_step(Contender(name, loss, loss), 16, 256, CPU)
            loss.get_submodule("extractor").make_ready(torch.empty(1, 3, 256, 256))  # type: ignore[operator]
            with counting.Tally() as tally:
                step()
        assert loss.diagnostics is not None
        assert tally.peak <= bar * perceptual, name


@needs_basicsr
def test_count_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--batch", "1", "--size", "32", "--output", str(tmp_path)]
    contenders = ["perceptual", "random_convs", "random_convs:compile"]
    assert main(["bench", "--count", "--contenders", *contenders, *flags]) == 0
    printed = capsys.readouterr()
    assert "| random_convs | 1, 32 |" in printed.out
    assert "random_convs:compile is left out" in printed.err
    counts = json.loads((tmp_path / "losses_counted.json").read_text())["counts"]
    assert [row["name"] for row in counts] == ["perceptual", "random_convs"]
    assert main(["bench", "--count", "--step", "srvgg", "--contenders", "random_convs", *flags]) == 0
    assert "| srvgg + random_convs | 1, 32 |" in capsys.readouterr().out


def test_every_call_begins_rounds_in_turn() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = rounds(calls, 3, 1, CPU)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert [len(each) for each in seconds.values()] == [3, 3, 3]
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_the_import_brings_in_no_host_and_no_network_library() -> None:
    named = ("basicsr", "transformers", "torchvision", "timm", "matplotlib", "torch._dynamo", "torch._inductor")
    code = f"import sys, clp_basicsr; print([name for name in {named} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_on_a_gpu_events_tell_the_time_and_the_allocator_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own functions stood in for, since there may be no GPU: which are called, and in what order."""
    happened: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            happened.append("record")

        def elapsed_time(self, end: object) -> float:
            assert isinstance(end, Event)
            assert happened[-1] == "synchronize", "before that there is no time to tell"
            return 250.0

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        happened.append(f"on {device}")
        yield

    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: happened.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: happened.append("kept waiting"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: happened.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1700 if happened[-1] == "call" else 0)
    device = torch.device("cuda:1")
    calls = {"only": lambda: happened.append("call")}
    assert rounds(calls, 2, 1, device) == {"only": [0.25, 0.25]}
    assert happened == ["call", *["on cuda:1", "record", "call", "record", "synchronize"] * 2]
    happened.clear()
    assert rounds(calls, 1, 0, device, queued=True) == {"only": [0.25]}
    assert happened == ["on cuda:1", "kept waiting", "record", "call", "record", "synchronize"]
    happened.clear()
    assert peak_bytes(calls["only"], device) == 700
    assert happened == ["call", "synchronize", "reset", "call"]


@pytest.mark.parametrize("name", ["perceptual:bfloat16", "lpips:compile", "perceptual:nonsense"])
def test_rivals_have_no_settings(name: str) -> None:
    with pytest.raises(ValueError, match=f"must have no setting but channels_last, but got '{name}'"):
        build(name, torch.device("cpu"))


def test_what_a_gpu_needs_when_the_cpu_is_ahead_has_a_column_of_its_own() -> None:
    own, rival = (
        report.Row("vgg", 1, 32, Spread(1, 2, 3), "perceptual", Spread(1, 1, 1), 10, 1.0, queued)
        for queued in (Spread(0.25, 0.5, 0.75), None)
    )
    head, rule, *lines = report.table([own, rival]).splitlines()
    assert "| GPU alone |" in head
    assert {line.count("|") for line in (head, rule, *lines)} == {9}
    assert "| 1.00 (1.00 to 1.00) | 0.50 (0.25 to 0.75) | 0 | 1.00 |" in lines[0]
    assert "GPU alone" not in report.table([rival])
