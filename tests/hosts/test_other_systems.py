"""What Windows, other encodings, today's wandb and notebooks do otherwise, as far as it can be had on any machine."""

import locale
from pathlib import Path

import cv2
import numpy as np
import pytest

from clp_basicsr.hosts.images_anywhere import WritingAnywhere
from clp_basicsr.hosts.options.encoding import encoding_of, read_text
from clp_basicsr.hosts.options.file import read_option_file
from hosts.options import train_options, write
from hosts.records import log_entries
from hosts.runs import python, succeeded


@pytest.mark.parametrize("name", ["für.png", "für.jpg"])
def test_images_in_folders_of_any_name(name: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    assert WritingAnywhere(cv2).imwrite(str(tmp_path / name), image)
    assert cv2.imwrite(str(tmp_path / f"opencvs{Path(name).suffix}"), image)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"opencvs{Path(name).suffix}").read_bytes()
    with pytest.raises(FileNotFoundError, match="no such folder"):
        WritingAnywhere(cv2).imwrite(str(tmp_path / "no such folder" / name), image)
    assert WritingAnywhere(cv2).IMREAD_COLOR == cv2.IMREAD_COLOR


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_encoding_of_an_option_file(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yml"
    file.write_bytes("name: für".encode(encoding))
    assert encoding_of(file) == encoding
    file.write_bytes("name: für".encode("cp1252"))
    monkeypatch.setattr(locale, "getpreferredencoding", lambda _: "cp1252")
    assert read_text(file) == "name: für"


def test_a_byte_order_mark_is_no_part_of_the_first_option(pairs: Path, tmp_path: Path) -> None:
    file = write(train_options(pairs), tmp_path)
    plain = read_option_file(file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_option_file(file) == plain


def test_option_files_are_utf_8_whatever_the_machine_s_encoding_is(pairs: Path, tmp_path: Path) -> None:
    file = write(train_options(pairs, total_iter=1), tmp_path)
    file.write_text(f"# für\n{file.read_text()}", encoding="utf-8")
    other = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    succeeded(python("-m", "clp_basicsr.train", "-opt", str(file), folder=tmp_path, **other))
    assert set(log_entries(tmp_path / "experiments/tiny")) == {1}
    (copied,) = (tmp_path / "experiments/tiny").glob("*.yml")
    assert "# für\n" in copied.read_text(encoding="utf-8")


def test_todays_wandb_has_the_name_that_basicsr_calls(tmp_path: Path) -> None:
    for name, text in {
        "wandb/__init__.py": "from wandb import util",
        "wandb/util.py": "",
        "wandb/sdk/__init__.py": "",
        "wandb/sdk/lib/__init__.py": "",
        "wandb/sdk/lib/runid.py": "def generate_id(): return 'abc'",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "run.py").write_text("import clp_basicsr, wandb; print(wandb.util.generate_id())")
    assert succeeded(python("run.py", folder=tmp_path)).strip() == "abc"


@pytest.mark.slow
def test_spawned_workers_of_a_process_without_a_main_file(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, total_iter=1)
    options["datasets"]["train"]["num_worker_per_gpu"] = 1
    file = write(options, tmp_path)
    code = (
        "import multiprocessing; multiprocessing.set_start_method('spawn'); "
        f"from clp_basicsr.train import main; main(['-opt', {str(file)!r}])"
    )
    succeeded(python("-c", code, folder=tmp_path))
    assert set(log_entries(tmp_path / "experiments/tiny")) == {1}
