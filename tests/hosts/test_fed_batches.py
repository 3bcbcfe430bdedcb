"""What models keep of a batch, however their class has come to its `feed_data`."""

import functools
import pickle
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from clp_basicsr.hosts import fed_batches

BATCH = {"lq": torch.zeros(1), "gt": torch.ones(1), "neg": torch.full((1,), 0.5)}


class Base:
    """As little of BasicSR's BaseModel as a batch needs."""

    gt: Tensor
    neg: Tensor

    def __init__(self, opt: dict[str, Any]) -> None:
        self.device = torch.device("cpu")

    def feed_data(self, data: Any) -> Any: ...

    def take(self, data: Any, key: str = "gt") -> str:
        self.lq = data["lq"]
        if key in data:
            self.gt = data[key]
        return "fed"


fed_batches.attach(Base)


class Plain(Base):
    def feed_data(self, data: Any) -> Any:
        return self.take(data)


class Partial(Base):
    feed_data = functools.partialmethod(Base.take, key="gt")


class Above:
    def feed_data(self, data: Any) -> Any:
        return Base.take(self, data)  # type: ignore[arg-type]


class Mixed(Above, Base): ...


class Child(Plain):
    def feed_data(self, data: Any) -> Any:
        return super().feed_data(data)


Plain({})


class Decorated(Base):
    @functools.wraps(Plain.feed_data)  # a wrapped one already
    def feed_data(self, data: Any) -> Any:
        return self.take(data)


@pytest.mark.parametrize("kind", [Plain, Partial, Mixed, Child, Decorated])
def test_negatives_are_kept_and_an_old_gt_is_not(kind: type[Base]) -> None:
    model = kind({})
    assert model.feed_data(BATCH) == "fed"
    assert torch.equal(model.neg, BATCH["neg"])
    assert model.gt is BATCH["gt"]
    assert model.feed_data({"lq": BATCH["lq"]}) == "fed"
    assert not hasattr(model, "gt")


def test_the_last_of_many_models_is_fed_as_the_first() -> None:
    """A method that each of them wraps once more would be as many calls deep."""
    for _ in range(sys.getrecursionlimit()):
        model = Child({})
    assert model.feed_data(BATCH) == "fed"
    assert torch.equal(model.neg, BATCH["neg"])


def test_a_gt_of_the_models_own_stays() -> None:
    model = Plain({})
    model.feed_data(BATCH)
    model.gt = torch.zeros(2)
    model.feed_data({"lq": BATCH["lq"]})
    assert torch.equal(model.gt, torch.zeros(2))


class Pair(Base):
    def feed_data(self, lq: Any, gt: Any = None) -> Any:  # type: ignore[override]
        return lq, gt


class Named(Base):
    def feed_data(self, batch: Any) -> Any:  # type: ignore[override]
        return self.take(batch)


class Still(Base):
    @staticmethod
    def feed_data(data: Any) -> Any:  # type: ignore[override]
        return data


def test_other_manners_of_feeding_are_left_alone() -> None:
    images = torch.zeros(1), torch.ones(1)
    assert Pair({}).feed_data(*images) == images
    assert Pair({}).feed_data(lq=1, gt=2) == (1, 2)
    assert Still({}).feed_data(images) == Still.feed_data(images) == images
    named = Named({})
    named.feed_data(batch=BATCH)
    assert torch.equal(named.neg, BATCH["neg"])
    for batch in (images, torch.zeros(1)):
        assert Pair({}).feed_data(batch) == (batch, None)


def test_a_model_that_was_fed_is_pickled() -> None:
    model = Plain({})
    model.feed_data(BATCH)
    assert torch.equal(pickle.loads(pickle.dumps(model)).neg, BATCH["neg"])
