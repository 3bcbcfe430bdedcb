"""What calls CUDA by name says so on a machine without a GPU, in one line that names it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from clp_basicsr.cli import main
from hosts.options import train_options, write
from hosts.realesrgan import realesrgan_options
from hosts.runs import isolated, train


@pytest.fixture(params=["driver", "build"])
def _no_cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is here, and as in a torch that was built without CUDA, where the error is an AssertionError."""
    if request.param == "build":
        monkeypatch.delattr(torch._C, "_cuda_getDeviceCount")


@pytest.mark.usefixtures("_no_cuda")
@pytest.mark.parametrize("model_type", ["RealESRGANModel_basicsr", "RealESRNetModel_basicsr"])
def test_a_model_that_calls_cuda(
    model_type: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(realesrgan_options(pairs, model_type, usm=True), tmp_path)
    with isolated(tmp_path):
        assert main(["train", "-opt", str(file)]) == 1
    error = capsys.readouterr().err
    assert f"{model_type.removesuffix('_basicsr')} needs an NVIDIA GPU" in error
    assert "DiffJPEG(differentiable=False).cuda()" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("changed", "data", "message"),
    [
        ({"num_gpu": 1}, {}, "`num_gpu` asks for an NVIDIA GPU, but torch finds none. Write `num_gpu: auto`"),
        (
            {},
            {"prefetch_mode": "cuda", "pin_memory": True},
            "CUDAPrefetcher needs an NVIDIA GPU.*`prefetch_mode: cuda`",
        ),
    ],
)
def test_an_option_that_asks_for_one(
    changed: dict[str, Any], data: dict[str, Any], message: str, pairs: Path, tmp_path: Path
) -> None:
    options = {**train_options(pairs), **changed}
    options["datasets"]["train"].update(data)
    with pytest.raises(RuntimeError, match=message):
        train(tmp_path, options)


def test_other_errors_keep_their_words(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, optim_g={"type": "Adam", "lr": -1.0})
    with pytest.raises(ValueError, match="Invalid learning rate"):
        train(tmp_path, options)
