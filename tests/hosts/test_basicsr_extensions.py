"""``--import``: a person's own or a third party's code, imported before BasicSR's pipeline starts."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import basicsr.test
import basicsr.train
import pytest
from basicsr.utils.registry import MODEL_REGISTRY

import clp_basicsr.test
import clp_basicsr.train
from clp_basicsr.cli import main
from hosts.options import train_options, write

COMMANDS = {"train": clp_basicsr.train.main, "test": clp_basicsr.test.main}

OWN_MODELS = """
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import LOSS_REGISTRY, MODEL_REGISTRY
assert "CLPLoss" in LOSS_REGISTRY
MODEL_REGISTRY.register(type("ModelOfTheirOwn", (SRModel,), {}))
"""


@pytest.fixture
def workplace(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory that is not on Python's path, as for the command `clp-basicsr`; nothing imported stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(MODEL_REGISTRY, "_obj_map", dict(iter(MODEL_REGISTRY)))
    write(train_options(pairs) | {"val": {"val_freq": 100, "save_img": False}}, tmp_path)  # for both commands
    (tmp_path / "own_models.py").write_text(OWN_MODELS, encoding="utf-8")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "models.py").write_text("import own_models", encoding="utf-8")
    yield tmp_path
    for name in ("own_models", "own_package", "own_package.models"):
        sys.modules.pop(name, None)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], bool]]:
    """Stand in for both pipelines: the command lines, and whether the model was registered by then."""
    seen: list[tuple[list[str], bool]] = []

    def pipeline(_: str) -> None:
        seen.append((list(sys.argv), "ModelOfTheirOwn" in MODEL_REGISTRY))

    monkeypatch.setattr(basicsr.train, "train_pipeline", pipeline)
    monkeypatch.setattr(basicsr.test, "test_pipeline", pipeline)
    return seen


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["--import", "own_models", "-opt", "options.yml"], []),
        (["-opt", "options.yml", "--import=own_models"], []),
        (["-opt", "options.yml", "--import", "own_package.models"], []),
        (["--import", "json", "-opt", "options.yml", "--import", "own_models", "--debug"], ["--debug"]),
        (
            ["-opt", "options.yml", "--force_yml", "name=a b", "val:x=-1", "--import", "own_models", "--auto_resume"],
            ["--force_yml", "name=a b", "val:x=-1", "--auto_resume"],
        ),
    ],
)
def test_imported_before_the_pipeline_starts(
    command: Callable[[list[str]], None], given: list[str], left: list[str], started: list[tuple[list[str], bool]]
) -> None:
    command(given)
    ((arguments, registered),) = started
    assert registered
    assert arguments[1:] == ["-opt", "options.yml", *left]
    assert "--import own_" in arguments[0]  # what BasicSR writes into its copy of the option file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no_such_package", None, "there is no 'no_such_package'"),
        ("own_package.no_such_module", None, "there is no 'own_package.no_such_module'"),
        ("no_such_package.models", None, "there is no 'no_such_package'"),
        ("own_broken", "import not_installed", "importing 'own_broken' failed: No module named 'not_installed'"),
        ("own_broken", "from json import none_such", "importing 'own_broken' failed: cannot import name 'none_such'"),
    ],
)
def test_what_cannot_be_imported_is_named_in_one_line(
    name: str,
    content: str | None,
    message: str,
    workplace: Path,
    started: list[tuple[list[str], bool]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content:
        (workplace / f"{name}.py").write_text(content, encoding="utf-8")
    assert main(["train", "--import", name, "-opt", "options.yml"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("clp-basicsr train: Flag `--import` ")
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not started


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["own_models.py"], "got 'own_models.py'. Try 'own_models'."),
        (["./own_package/models.py"], "got './own_package/models.py'. Try 'own_package.models'."),
        (["../own_models.py"], "go to where it is, then 'own_models'."),
        (["/somewhere/own_models.py"], "go to where it is, then 'own_models'."),
        ([], "expected one argument"),
    ],
)
def test_what_is_no_name(
    given: list[str], message: str, started: list[tuple[list[str], bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "-opt", "options.yml", "--import", *given])
    error = capsys.readouterr().err
    assert message in error
    assert "--import" in error
    assert not started


def test_an_error_in_their_code_keeps_its_traceback(workplace: Path, started: list[tuple[list[str], bool]]) -> None:
    (workplace / "own_broken.py").write_text("1 / 0", encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        main(["train", "--import", "own_broken", "-opt", "options.yml"])
    assert not started
