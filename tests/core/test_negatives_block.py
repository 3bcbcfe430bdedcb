"""`with loss.negatives(lr):` for training loops that call every loss with two arguments."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

from clp_basicsr import CLPLoss


def images(size: int, seed: int) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


class Model:
    lq = images(8, 3)


SR, GT, LR, OTHER = images(32, 0), images(32, 1), images(8, 2), Model.lq


@pytest.fixture
def loss() -> CLPLoss:
    return CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1})


def test_serves_calls_without_lr(loss: CLPLoss) -> None:
    with loss.negatives(LR) as same:
        assert same is loss
        assert loss(SR, GT) == loss(SR, GT, LR)
        assert loss(SR, GT, OTHER) != loss(SR, GT)
    with pytest.raises(ValueError, match=r"with loss\.negatives\(lr\)"):
        loss(SR, GT)


def test_goes_before_a_bound_model(loss: CLPLoss) -> None:
    model = Model()
    loss.bind(model)
    with loss.negatives(LR):
        assert loss(SR, GT) == loss(SR, GT, LR)
    assert loss(SR, GT) == loss(SR, GT, OTHER)


def test_blocks_nest_and_end_with_an_error(loss: CLPLoss) -> None:
    with loss.negatives(LR):
        with pytest.raises(RuntimeError, match="stop"), loss.negatives(OTHER):
            raise RuntimeError("stop")
        assert loss(SR, GT) == loss(SR, GT, LR)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_is_not_copied(copied: "type[CLPLoss]", loss: CLPLoss) -> None:
    with loss.negatives(LR):
        twin = copied(loss)
    with pytest.raises(ValueError, match="needs the LR batch"):
        twin(SR, GT)
