"""Weights files and checkpoint folders, damaged in every way: a finite loss, or an error that says what is wrong."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from fuzzing import attempt, check_finite, examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from clp_basicsr import CLPLoss

State = dict[str, Tensor]

GT, LR = (torch.rand(shape, generator=torch.Generator().manual_seed(5)) for shape in [(1, 3, 16, 16), (1, 3, 4, 4)])
SR = (GT * 0.9).requires_grad_()
LAYERS = {"relu1_1": 1.0}


def used(**keywords: Any) -> None:
    """Build a loss with weights and call it."""
    loss = attempt(lambda: CLPLoss(**keywords))
    if isinstance(loss, CLPLoss):
        value = attempt(lambda: loss(SR, GT, LR))
        if isinstance(value, Tensor):
            check_finite(value, SR)


@pytest.fixture(scope="module")
def state(vgg_weights: Path) -> State:
    whole: State = torch.load(vgg_weights, weights_only=True)
    return {name: tensor.clone() for name, tensor in whole.items() if name.startswith("features.0.")}


@pytest.fixture(scope="module")
def files(state: State, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same weights in every form that is read."""
    folder = tmp_path_factory.mktemp("forms")
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "a.safetensors")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


Damage = Callable[[bytearray], bytes]
PLACES = st.floats(0, 1, exclude_max=True) | st.floats(0, 0.1)
PIECES = st.binary(max_size=20) | st.sampled_from(
    [b"\xff" * 8, b"\x7f" * 4, b"\x00" * 64, b"PK\x03\x04", b"\x80\x02}", b"."]
)


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    kind, place, piece = (
        draw(st.sampled_from(["cut", "insert", "overwrite", "flip", "swap"])),
        draw(PLACES),
        draw(PIECES),
    )

    def damage(content: bytearray) -> bytes:
        start = int(place * len(content))
        if kind == "cut":
            return bytes(content[:start])
        if kind == "insert":
            return bytes(content[:start] + piece + content[start:])
        if kind == "overwrite":
            content[start : start + len(piece)] = piece
        elif kind == "flip" and content:
            content[start] ^= 1 << (len(piece) % 8)
        elif kind == "swap":
            content = content[start:] + content[:start]
        return bytes(content)

    return damage


@given(
    form=st.sampled_from(["zip.pth", "old.pth", "a.safetensors"]), changes=st.lists(damages(), min_size=1, max_size=3)
)
@examples(200)
def test_damaged_bytes(form: str, changes: list[Damage], files: dict[str, bytes], tmp_path: Path) -> None:
    content = files[form]
    for change in changes:
        content = change(bytearray(content))
    (tmp_path / form).write_bytes(content)
    used(model="vgg", weights=tmp_path / form, layer_weights=LAYERS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.integers(-2, 300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
DTYPES = st.sampled_from(
    ["F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "f32", "F33", ""]
)
OFFSETS = st.lists(st.integers(-1, 8000) | st.sampled_from([2**31, 2**63, 2**64, 10**30, 256, 7168]), max_size=3)
SHAPES = st.lists(st.integers(-1, 70) | st.sampled_from([2**31, 2**63, 0]), max_size=5)


@given(
    tensor=st.sampled_from(["features.0.weight", "features.0.bias"]),
    lies=st.fixed_dictionaries(
        {},
        optional={"dtype": DTYPES | JSON, "shape": SHAPES | JSON, "data_offsets": OFFSETS | JSON, "extra": JSON},
    ),
    others=st.fixed_dictionaries({}, optional={"__metadata__": JSON, "features.2.bias": JSON, "": JSON}),
    size=st.none() | st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63, 100_000_001, 2**64 - 1]),
)
@examples(200)
def test_lying_header(
    tensor: str, lies: dict[str, Any], others: dict[str, Any], size: int | None, files: dict[str, bytes], tmp_path: Path
) -> None:
    content = files["a.safetensors"]
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:end])
    header[tensor] |= lies
    text = json.dumps({**header, **others}).encode()
    length = struct.pack("<Q", len(text) if size is None else size)
    (tmp_path / "a.safetensors").write_bytes(length + text + content[end:])
    used(model="vgg", weights=tmp_path / "a.safetensors", layer_weights=LAYERS)


def odd_tensors(good: Tensor) -> list[object]:
    """Return what can stand in a state dict in the place of a tensor."""
    return [
        good.half(), good.double(), good.bfloat16(), good.to(torch.float8_e4m3fn), good.int(), good > 0, good.cfloat(),
        good.to_sparse(), good.to("meta"), torch.quantize_per_tensor(good, 0.1, 0, torch.qint8), good[:1],
        good.flatten(), good[None], good[:0], good.expand(2, *good.shape), good.sum(), nn.Parameter(good), good.T,
        torch.full_like(good, torch.nan), torch.full_like(good, torch.inf), good * 1e38, good * 1e-45, good * 0,
        torch.nested.nested_tensor([good]), None, 1.0, "x", [good], {"weight": good}, good.tolist(),
        nn.Conv2d(3, 64, 3),
    ]  # fmt: skip


WHOLES: tuple[object, ...] = (
    None, 3, "text", b"bytes", [], {}, (), {1: 2}, {"a": None}, {"": torch.zeros(1)}, nn.Conv2d(3, 64, 3), print, set(),
    torch.zeros(3), [torch.zeros(3)], {"state_dict": {"features.0.weight": torch.zeros(64, 3, 3, 3)}}, torch.float32,
    {"epoch": 3, "params": {}}, {None: torch.zeros(1)}, {"features.x": torch.zeros(1)}, {"features.": torch.zeros(1)},
)  # fmt: skip


@pytest.mark.parametrize("model", ["vgg", "efficientnet_lite0"])
@pytest.mark.parametrize("zipped", [True, False])
def test_odd_contents(model: str, zipped: bool, state: State, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    odd = [{**state, name: each} for name in state for each in odd_tensors(state[name])]
    for content in [*odd, *WHOLES] if model == "vgg" else WHOLES:
        try:
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
        except (RuntimeError, NotImplementedError, AttributeError):
            continue  # the old form does not know that kind
        used(model=model, weights=path, layer_weights=LAYERS if model == "vgg" else None)


VALUES: tuple[object, ...] = (None, -1, 0, 1, 0.5, "x", "", [], {}, [1, 2], True, float("nan"), float("inf"), 40)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_odd_configuration(value: object, dino_reg_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dino_reg_folder, tmp_path / "checkpoint"))
    config = json.loads((folder / "config.json").read_text())
    for key in [*config, "num_channels", "out_features", "stage_names", "auto_map", "dtype", "quantization_config"]:
        (folder / "config.json").write_text(json.dumps({**config, key: value}))
        used(model=str(folder))
        used(model=str(folder), weights="random")


CONFIGS = (
    b"null", b"3", b'"x"', b"[]", b"[" * 50_000, b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"{}", b'{"model_type": null}',
    b'{"model_type": ["dinov2"]}', b'{"model_type": "dinov2"}', b'{"model_type": "resnet"}', b'{"model_type": "swin"}',
    b'{"model_type": "timm_backbone"}', b'{"model_type": "dinov2", "num_hidden_layers": 0}', b"{" * 100, b"\0" * 100,
    b'{"model_type": "bert"}', b'{"model_type": "dinov2", "architectures": 5}', b'{"auto_map": {"AutoConfig": "a.B"}}',
)  # fmt: skip


@pytest.mark.parametrize("weights", [None, "random"])
@pytest.mark.parametrize("content", CONFIGS, ids=lambda content: content[:40].decode("latin-1"))
def test_configuration_files(content: bytes, weights: str | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    used(model=str(tmp_path), weights=weights, layer_weights={"block1": 1.0})


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@given(changes=st.lists(damages(), min_size=1, max_size=2))
@examples(60)
def test_damaged_folder(name: str, changes: list[Damage], dino_reg_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dino_reg_folder, tmp_path / "checkpoint", dirs_exist_ok=True))
    content = (folder / name).read_bytes()
    for change in changes:
        content = change(bytearray(content))
    (folder / name).write_bytes(content)
    used(model=str(folder), layer_weights={"block1": 1.0})


def test_folders_in_the_place_of_files(dino_reg_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        folder = Path(shutil.copytree(dino_reg_folder, tmp_path / name / "checkpoint"))
        (folder / name).unlink()
        (folder / name).mkdir()
        used(model=str(folder))
        used(model="vgg", weights=folder / name)
        used(model="efficientnet_lite0", weights=folder)
        used(model="dinov2_small_reg", weights=folder / name)


@pytest.mark.parametrize("index", [{}, [], {"weight_map": {"a": "b"}}, {"weight_map": 3}, {"weight_map": {}}])
def test_index_of_parts_that_lies(index: object, dino_reg_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dino_reg_folder, tmp_path / "checkpoint"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    used(model=str(folder))
