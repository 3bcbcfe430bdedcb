"""`weights="random"`: the same every time, the caller's random state untouched, and said once."""

import pickle
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from clp_basicsr import CLPLoss

from .oracles import crop

Photos = tuple[Tensor, Tensor]

NETWORKS: dict[str, dict[str, float]] = {
    "vgg": {"relu2_1": 1},
    "dinov2_small": {"block1": 1},
    "dinov2_small_reg": {"block1": 1},
    "dinov3_small": {"block1": 1},
    "efficientnet_lite0": {"block3": 1},
    "torchvision:resnet18": {"layer1": 1},
    "timm:test_resnet": {"layer1": 1},
}


def untrained(model: str, **keywords: Any) -> CLPLoss:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CLPLoss(model, weights="random", layer_weights=NETWORKS.get(model), **keywords)


@pytest.mark.parametrize("model", NETWORKS)
def test_two_builds_are_equal(model: str, photo_batch: Photos) -> None:
    images = crop(photo_batch, 1, 32)
    torch.manual_seed(0)
    first = untrained(model)
    torch.manual_seed(1)
    second = untrained(model)
    pairs = list(zip(first.buffers(), second.buffers()))
    assert all(torch.equal(*pair) for pair in pairs)
    assert any(pair[0].dim() == 4 and pair[0].std() > 0 for pair in pairs)
    assert first(*images) == second(*images) > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("model", [*NETWORKS, "random_convs"])
def test_the_default_precision_of_a_host_is_not_the_networks(model: str, dtype: torch.dtype) -> None:
    build = partial(CLPLoss, preset="rlfn") if model == "random_convs" else partial(untrained, model)
    expected = build()
    torch.set_default_dtype(dtype)
    try:
        built = build()
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(built.buffers(), expected.buffers(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_threads_leave_the_default_precision_as_it_was() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with ThreadPoolExecutor(4) as pool:
            built = list(pool.map(lambda _: CLPLoss(preset="rlfn"), range(8)))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert {each.dtype for loss in built for each in loss.buffers()} == {torch.float32}


def random_state_of_numpy() -> NDArray[np.uint32]:
    key: NDArray[np.uint32] = np.random.get_state(legacy=False)["state"]["key"]
    return key.copy()


@pytest.mark.parametrize("model", NETWORKS)
def test_random_state_is_left_alone(model: str) -> None:
    states = torch.random.get_rng_state(), random.getstate(), random_state_of_numpy()
    untrained(model)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(random_state_of_numpy(), states[2])


@pytest.mark.parametrize("model", NETWORKS)
def test_it_warns_exactly_once(model: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CLPLoss(model, weights="random", layer_weights=NETWORKS[model])
    assert len(caught) == 1
    assert "untrained" in str(caught[0].message)
    assert "random" in str(caught[0].message)
    assert Path(caught[0].filename) == Path(__file__)


def test_trained_weights_do_not_warn(vgg_weights: Path, dino_folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CLPLoss("vgg", weights=vgg_weights)
        CLPLoss(str(dino_folder))
        CLPLoss("efficientnet_lite0")


def test_a_checkpoint_folder_gives_its_architecture(dino_folder: Path, photo_batch: Photos) -> None:
    images = crop(photo_batch, 1, 32)
    drawn = untrained(str(dino_folder))
    assert drawn.layer_weights == CLPLoss(str(dino_folder)).layer_weights
    assert drawn(*images) != CLPLoss(str(dino_folder))(*images)


@pytest.mark.parametrize("model", [*NETWORKS, "random_convs"])
def test_the_generators_of_gpus_stay_as_a_host_has_seeded_them(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """BasicSR seeds them before it builds its losses, otherwise in each process."""
    seeded: list[object] = []
    for owner, name in ((torch.cuda, "manual_seed_all"), (torch.mps, "manual_seed"), (torch.xpu, "manual_seed_all")):
        monkeypatch.setattr(owner, name, seeded.append)
    torch.manual_seed(7)
    assert seeded  # or this would notice nothing
    del seeded[:]
    built = CLPLoss(preset="rlfn") if model == "random_convs" else untrained(model)
    pickle.loads(pickle.dumps(built))
    assert not seeded
