"""Pairs to train on. This file imports clp_basicsr before any test here imports basicsr."""

import shutil
from pathlib import Path

import cv2
import pytest
from skimage import data

import clp_basicsr  # noqa: F401  # without it BasicSR 1.4.2 cannot be imported
from hosts.options import SCALE
from hosts.records import records

__all__ = ["records"]

SIZE = 96
CROPS = {"astronaut": (40, 160), "coffee": (100, 230), "chelsea": (70, 130), "rocket": (120, 280)}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four crops of photos in ``gt``, and the same four times smaller in ``lq``."""
    folder = tmp_path_factory.mktemp("pairs")
    for name in CROPS:
        write_pair(folder, name)
    return folder


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four pairs of ``pairs``, of the size of a training crop: cropping at random changes nothing."""
    folder = tmp_path_factory.mktemp("crops")
    for name in CROPS:
        write_pair(folder, name, size=64)
    return folder


@pytest.fixture(scope="session")
def one_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single pair of the size of a training crop: whatever the order and the crop, every batch is the same."""
    folder = tmp_path_factory.mktemp("one_pair")
    write_pair(folder, "astronaut", size=64)
    return folder


def write_pair(folder: Path, name: str, size: int = SIZE) -> None:
    top, left = CROPS[name]
    photo = getattr(data, name)()[top : top + size, left : left + size, ::-1]
    small = cv2.resize(photo, (size // SCALE, size // SCALE), interpolation=cv2.INTER_AREA)
    for part, image in (("gt", photo), ("lq", small)):
        (folder / part).mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / part / f"{name}.png"), image)


@pytest.fixture
def triples(pairs: Path, tmp_path: Path) -> Path:
    """The pairs, and beside each GT its photographic negative: GT + NEG is white, under any crop and flip."""
    folder = tmp_path / "triples"
    shutil.copytree(pairs, folder)
    (folder / "neg").mkdir()
    for file in (folder / "gt").iterdir():
        assert cv2.imwrite(str(folder / "neg" / file.name), 255 - cv2.imread(str(file)))
    return folder
