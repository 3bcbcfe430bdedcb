"""Where CLPLoss is imported from, and that importing is cheap."""

import importlib
import importlib.metadata
import subprocess
import sys

import pytest

import clp_basicsr
from clp_basicsr import CLPLoss


def installed() -> bool:
    try:
        importlib.metadata.distribution("clp_basicsr")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def test_the_documented_names() -> None:
    offered: dict[str, object] = {}
    exec("from clp_basicsr import *", offered)  # fails where a name stands in `__all__` alone
    assert {"CLPLoss", "build_extractor", "register"} <= set(offered)


@pytest.mark.skipif(not installed(), reason="clp_basicsr is not installed; a bare checkout has no clperceptual_loss")
def test_the_first_documentations_name() -> None:
    assert importlib.import_module("clperceptual_loss").CLPLoss is CLPLoss


@pytest.mark.skipif(not installed(), reason="clp_basicsr is not installed")
def test_version_is_the_distributions() -> None:
    assert clp_basicsr.__version__ == importlib.metadata.version("clp_basicsr")


def test_the_one_line_module_gives_the_same_class() -> None:
    assert importlib.import_module("clp_basicsr._clperceptual_loss").CLPLoss is CLPLoss


def test_importing_brings_in_neither_basicsr_nor_transformers() -> None:
    code = "import sys, clp_basicsr; print(sorted({'basicsr', 'transformers', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
