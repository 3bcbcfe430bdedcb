"""Checkpoint folders and hub ids: what is wrong with them, and what to do about it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig

from clp_basicsr import CLPLoss

from .oracles import crop

Photos = tuple[Tensor, Tensor]
State = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path, dino_reg_folder: Path) -> Path:
    """A checkpoint folder that a test may damage."""
    return Path(shutil.copytree(dino_reg_folder, tmp_path / "checkpoint"))


def rewrite(folder: Path, change: Callable[[State], State]) -> None:
    file = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(file)), file, metadata={"format": "pt"})


def refused(folder: Path, *said: str, kind: type[Exception] = ValueError) -> None:
    for keywords in ({"model": str(folder)}, {"model": "dinov2_small_reg", "weights": folder}):
        with pytest.raises(kind, match=r".") as caught:
            CLPLoss(**keywords)
        for part in (str(folder), *said):
            assert part in str(caught.value)


def test_config_missing(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "config.json", kind=FileNotFoundError)


def test_weights_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors", "save_pretrained")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "no_such_network"}'])
def test_config_damaged(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    refused(folder, "config.json")


def test_tensors_missing(folder: Path) -> None:
    rewrite(folder, lambda state: {name: each for name, each in state.items() if "layer.1" not in name})
    refused(folder, "tensors are missing", "layer.1")


def test_one_tensor_missing(folder: Path) -> None:
    rewrite(folder, lambda state: {name: each for name, each in state.items() if name != "layernorm.bias"})
    refused(folder, "1 tensors are missing", "layernorm.bias")


def test_tensors_of_deeper_blocks_may_be_missing(folder: Path, dino_reg_folder: Path, photo_batch: Photos) -> None:
    rewrite(folder, lambda state: {name: each for name, each in state.items() if "layer.3" not in name})
    images = crop(photo_batch, 1, 32)
    layers = {"block2": 1}
    cut, whole = (CLPLoss(str(each), layer_weights=layers)(*images) for each in (folder, dino_reg_folder))
    assert torch.equal(cut, whole)
    refused(folder, "tensors are missing", "layer.3")


def test_wrong_shape(folder: Path) -> None:
    rewrite(folder, lambda state: {**state, "layernorm.bias": torch.zeros(31)})
    refused(folder, "1 have another shape", "layernorm.bias")


def test_config_of_another_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))
    refused(folder, "another shape")


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, (1 << 60).to_bytes(8, "little") + b"{}"])
def test_safetensors_damaged(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "cannot be read")


def test_safetensors_cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    refused(folder, "cannot be read")


def test_pytorch_file_damaged(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"garbage" * 50)
    refused(folder, "cannot be read")


def test_network_without_backbone_class(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"Hugging Face backbone class.*'bert'"):
        CLPLoss(str(tmp_path))


def test_weights_folder_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`weights` for `dinov2_base` must be a checkpoint folder") as caught:
        CLPLoss("dinov2", weights=tmp_path / "no")
    assert str(tmp_path / "no") in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("can't allocate memory"), ImportError("requires timm")], ids=str)
def test_what_is_no_matter_of_files_is_not_said_to_be_one(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(transformers.Dinov2Backbone, "__init__", fail)
    with pytest.raises(type(error), match=str(error)):
        CLPLoss("dinov2_small", weights="random")


@pytest.mark.parametrize(
    ("model", "hub_id", "files"),
    [
        ("nobody/no-such-network", "nobody/no-such-network", "model.safetensors preprocessor_config.json --local"),
        ("dinov3_7b", "facebook/dinov3-vit7b16-pretrain-lvd1689m", "model.safetensors --local"),
        ("dinov2_giant_reg", "facebook/dinov2-with-registers-giant", "model.safetensors --local"),
    ],
)
def test_hub_out_of_reach(model: str, hub_id: str, files: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="could not be had from the Hugging Face hub") as caught:
        CLPLoss(model)
    local = hub_id.rsplit("/", 1)[-1]
    for part in (f"`{model}`", f"hf download {hub_id}", files, f"weights='path/to/{local}'", "cache"):
        assert part in str(caught.value)


USES_THE_CACHE = """
import socket

def refuse(*_, **__):
    print("the hub was asked")
    raise OSError

socket.getaddrinfo = socket.socket.connect = refuse
from clp_basicsr import CLPLoss

print(CLPLoss("dinov2_small_reg", layer_weights={"block2": 1}).extractor.network.config.hidden_size)
"""


def test_what_is_in_the_cache_needs_no_hub(tmp_path: Path, dino_reg_folder: Path) -> None:
    repository = tmp_path / "models--facebook--dinov2-with-registers-small"
    shutil.copytree(dino_reg_folder, repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USES_THE_CACHE],
        env={**environment, "HF_HUB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    # Of transformers 5.0 and 5.17 AutoConfig asks once, `local_files_only` or not; no version asks for the weights.
    allowed = int(tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24))
    *asked, width = done.stdout.splitlines()
    assert width == "32", done.stderr
    assert len(asked) <= allowed, done.stderr


def test_weights_random_needs_no_hub_for_known_names() -> None:
    with pytest.warns(UserWarning, match="untrained"):
        CLPLoss("dinov2_small", weights="random", layer_weights={"block1": 1})


def test_folder_of_another_family_is_refused(dinov3_folder: Path, dino_reg_folder: Path) -> None:
    for folder, family in ((dinov3_folder, "dinov3_vit"), (dino_reg_folder, "dinov2_with_registers")):
        with pytest.raises(ValueError, match=f"their model type is '{family}'"):
            CLPLoss("dinov2", weights=folder)


def test_folder_of_another_size_is_used_and_told_of(dino_folder: Path) -> None:
    with pytest.warns(UserWarning, match="is 32 wide, while `dinov2_base` is 768 wide") as caught:
        loss = CLPLoss("dinov2", weights=dino_folder)
    assert loss.extractor.layers[-1] == "block8"
    assert {Path(each.filename) for each in caught} == {Path(__file__)}


def test_checkpoint_in_half_precision_runs_in_float32(tmp_path: Path, dino_folder: Path, photo_batch: Photos) -> None:
    exact = CLPLoss(str(dino_folder))(*crop(photo_batch, 1, 32))
    shutil.copytree(dino_folder, tmp_path / "half")
    config = json.loads((tmp_path / "half/config.json").read_text())
    (tmp_path / "half/config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    state = safetensors.torch.load_file(tmp_path / "half/model.safetensors")
    halved = {name: tensor.bfloat16() for name, tensor in state.items()}
    safetensors.torch.save_file(halved, tmp_path / "half/model.safetensors", metadata={"format": "pt"})
    loss = CLPLoss(str(tmp_path / "half"))
    assert {buffer.dtype for buffer in loss.buffers()} == {torch.float32}
    assert loss(*crop(photo_batch, 1, 32)).item() == pytest.approx(exact.item(), rel=0.02)

    shutil.copy(dino_folder / "model.safetensors", tmp_path / "half")  # in float32, whatever config.json says
    assert torch.equal(CLPLoss(str(tmp_path / "half"))(*crop(photo_batch, 1, 32)), exact)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"stage_names": 3}, "must have stages"),
        ({"stage_names": [1, 2]}, "must have stages"),
        ({"patch_size": "x"}, "must hold config.json"),
        ({"layer_norm_eps": "x"}, "must"),
        ({"layer_norm_eps": float("nan")}, "must be those of a trained network, but layer 'block1' of a grey image"),
        ({"num_hidden_layers": -1}, "must"),
    ],
    ids=str,
)
@pytest.mark.parametrize("weights", [None, "random"])
def test_configuration_that_cannot_be_meant(
    folder: Path, changed: dict[str, object], said: str, weights: str | None
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))
    if "stage_names" in changed and AutoConfig.from_pretrained(folder).stage_names != changed["stage_names"]:
        pytest.skip("this version of transformers makes the names of the stages itself")
    with pytest.raises(ValueError, match=re.escape(said)):
        CLPLoss(str(folder), weights=weights)


def test_network_for_images_of_one_channel(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_channels": 1}))
    with pytest.raises(ValueError, match="must take RGB images of any size, but fails with one of 14x14 pixels"):
        CLPLoss(str(folder), weights="random")
