"""Option files that BasicSR cannot use: one line that says what is wrong, or BasicSR gets to see the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import basicsr.train
import pytest
import yaml
from fuzzing import cases, examples
from hypothesis import given
from hypothesis import strategies as st

from clp_basicsr.cli import main
from hosts.options import PERCEPTUAL

SECTIONS = {"name": "x", "model_type": "SRModel", "num_gpu": 0, "datasets": {"train": {}}, "path": {}, "logger": {}}
MISTAKES: dict[str, str] = {
    "": "must hold a mapping",
    "[": "must be YAML, but it cannot be read in line",
    "name: a: b": "must be YAML, but it cannot be read in line 1",
    "name: x\n\ttrain: 1": "must be YAML, but it cannot be read in line 2",
    "- name: x": "must hold a mapping",
    "3: x": "must be text, but got 3",
    "train: {a: {3: x}}": "must be text, but got 3 under `train: a`",
    "? [a]\n: b": "must be YAML",
    "train: 3": "`train` in",
    "train: {perceptual_opt: CLPLoss}": "must be a block of options, but got 'CLPLoss'",
    "train: {perceptual_opt: {model: vgg}}": "Add `type: CLPLoss`",
    "train: {perceptual_opt: {type: CLPloss}}": "Did you mean 'CLPLoss'?",
    "train: {perceptual_opt: {type: clp_loss}}": "Did you mean 'CLPLoss'?",
    "train: {perceptual_opt: {type: CPLLoss}}": "Did you mean 'CLPLoss'?",
    "train: {total_iter: 1}": "no `name`, `model_type`, `num_gpu`, `datasets`, `path`, `logger`",
    yaml.safe_dump(SECTIONS): "but has no `train`",
    yaml.safe_dump({**SECTIONS, "train": {}, "num_gpu": None}): "but has no `num_gpu`",
    yaml.safe_dump({**SECTIONS, "train": {}, "logger": "on"}): "`logger` in",
    yaml.safe_dump(
        {**SECTIONS, "train": {}, "datasets": {"val": {}}}
    ): "must have a block `train`, but has only ['val']",
}


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for BasicSR's pipeline; whether it was reached."""
    seen: list[str] = []
    monkeypatch.setattr(basicsr.train, "train_pipeline", seen.append)
    return seen


def launched(content: bytes, folder: Path) -> int:
    (folder / "options.yml").write_bytes(content)
    cases["option files"] += 1
    return main(["train", "-opt", str(folder / "options.yml")])


@pytest.mark.parametrize(("text", "said"), MISTAKES.items(), ids=repr)
def test_mistakes(text: str, said: str, reached: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launched(text.encode(), tmp_path) == 1
    assert not reached
    printed = capsys.readouterr().err
    assert said in printed
    assert str(tmp_path / "options.yml") in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("name", ["CLPLoss", "PerceptualLoss", "L1Loss"])
def test_what_is_basicsrs_to_judge(name: str, reached: list[str], tmp_path: Path) -> None:
    options = {**SECTIONS, "train": {"perceptual_opt": {"type": name}}}
    assert launched(yaml.safe_dump(options).encode(), tmp_path) == 0
    assert reached


def test_force_yml_may_add_what_the_file_lacks(reached: list[str], tmp_path: Path) -> None:
    (tmp_path / "options.yml").write_text(yaml.safe_dump({**SECTIONS, "train": {}, "num_gpu": None}))
    assert main(["train", "-opt", str(tmp_path / "options.yml"), "--force_yml", "num_gpu=0"]) == 0
    assert reached


def test_a_test_takes_fewer_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import basicsr.test

    seen: list[str] = []
    monkeypatch.setattr(basicsr.test, "test_pipeline", seen.append)
    options = {name: SECTIONS[name] for name in ("name", "model_type", "num_gpu", "datasets", "path")} | {"val": {}}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(options))
    assert main(["test", "-opt", str(tmp_path / "test.yml")]) == 0
    assert seen


GOOD = yaml.safe_dump(
    {**SECTIONS, "train": {"perceptual_opt": PERCEPTUAL, "pixel_opt": {"type": "L1Loss"}}}, sort_keys=False
).encode()
PIECES = [
    b"\t",
    b": ",
    b"- ",
    b"{",
    b"[",
    b"'",
    b"&a ",
    b"*a ",
    b"!!int ",
    b"\xff",
    b"\0",
    b"#",
    b"? ",
    b"|\n",
    b"%",
    b"3: ",
]


@given(places=st.lists(st.tuples(st.integers(0, len(GOOD)), st.sampled_from(PIECES)), min_size=1, max_size=3))
@examples(400)
def test_damaged_files(places: list[tuple[int, bytes]], tmp_path_factory: Any) -> None:
    content = GOOD
    for place, piece in places:
        content = content[:place] + piece + content[place:]
    folder: Path = tmp_path_factory.mktemp("damaged")
    with pytest.MonkeyPatch.context() as patch:
        reached: list[str] = []
        patch.setattr(basicsr.train, "train_pipeline", reached.append)
        assert launched(content, folder) == (0 if reached else 1)
