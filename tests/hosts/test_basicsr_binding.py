"""Which model's LR batch a loss reads, and what is said when there is none."""

import copy
import gc
import pickle
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from basicsr.losses import build_loss
from basicsr.models import build_model
from basicsr.models.sr_model import SRModel
from torch import Tensor, nn

from clp_basicsr import CLPLoss as OwnLoss
from hosts.options import PERCEPTUAL, SCALE, train_options
from hosts.records import Records
from hosts.runs import isolated

KEYWORDS = {key: value for key, value in PERCEPTUAL.items() if key not in ("type", "model")}
HINT = r"loss\.bind\(model\)"


class Composed(nn.Module):
    """Somebody's own loss around others: no parameters to train, a pair as BasicSR wants it."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, sr: Tensor, gt: Tensor) -> tuple[Tensor, None]:
        return torch.stack([part(sr, gt)[0] for part in self.parts]).sum(), None


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return make_batch(0)


def make_batch(seed: int) -> dict[str, Tensor]:
    gt = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return {"gt": gt, "lq": F.avg_pool2d(gt, SCALE)}


@pytest.fixture
def model(tmp_path: Path) -> SRModel:
    return make_model(tmp_path)


def make_model(folder: Path) -> SRModel:
    options = train_options(folder) | {"is_train": True, "dist": False, "rank": 0, "world_size": 1}
    with isolated(folder):
        return build_model(options)


@pytest.fixture
def loss(tmp_path: Path) -> Any:
    return make_loss(tmp_path)


def make_loss(folder: Path) -> Any:
    with isolated(folder):
        return build_loss(PERCEPTUAL)


def step(model: SRModel, batch: dict[str, Tensor], iteration: int = 1) -> dict[str, float]:
    model.feed_data(batch)
    model.optimize_parameters(iteration)
    log: dict[str, float] = model.get_current_log()
    return log


def test_no_model_at_all(loss: Any, batch: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=HINT):
        loss(batch["gt"], batch["gt"])


def test_model_without_a_batch(model: SRModel, batch: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="SRModel, which must hold the LR batch in `lq`"):
        model.cri_perceptual(batch["gt"], batch["gt"])


def test_model_that_is_gone(batch: dict[str, Tensor], tmp_path: Path, records: Records) -> None:
    """A loss neither keeps its model alive nor clings to a dead one."""
    model = make_model(tmp_path)
    step(model, batch)
    loss, dead = model.cri_perceptual, weakref.ref(model)
    del model
    gc.collect()
    assert dead() is None
    with pytest.raises(ValueError, match=HINT):
        loss(batch["gt"], batch["gt"])

    heir = make_model(tmp_path)
    heir.cri_perceptual, other = loss, make_batch(1)
    step(heir, other)
    assert torch.equal(records.calls[-1].lr, other["lq"])


def test_two_models_with_the_same_loss(model: SRModel, batch: dict[str, Tensor], tmp_path: Path) -> None:
    other = make_model(tmp_path)
    other.cri_perceptual = model.cri_perceptual
    model.feed_data(batch)
    other.feed_data(make_batch(1))
    with pytest.raises(ValueError, match=HINT):
        other.optimize_parameters(1)
    model.cri_perceptual.bind(model)
    assert step(model, batch)["l_percep"] > 0


@pytest.mark.parametrize("keywords", [{}, {"negatives": ["lr", "blur"]}, {"diagnostics": False}])
def test_two_models_with_the_same_loss_and_the_lr_passed(
    keywords: dict[str, Any], batch: dict[str, Tensor], tmp_path: Path
) -> None:
    """Whose batch it is need not be told then."""
    with isolated(tmp_path):
        loss, alone = (build_loss({**PERCEPTUAL, **keywords}) for _ in range(2))
    models = [make_model(tmp_path) for _ in range(2)]
    for model in models:
        model.cri_perceptual = loss
    sr = (0.5 * batch["gt"]).requires_grad_()
    value, _ = loss(sr, batch["gt"], batch["lq"])
    assert torch.equal(value, alone(sr, batch["gt"], batch["lq"])[0])
    with pytest.raises(ValueError, match=r"2 models .SRModel, SRModel. .* whose iteration counts"):
        loss(sr, batch["gt"])


def test_second_model_takes_the_same_loss_later(model: SRModel, batch: dict[str, Tensor], tmp_path: Path) -> None:
    """It must not go on with the first model's batch in silence."""
    step(model, batch)
    other = make_model(tmp_path)
    other.cri_perceptual = model.cri_perceptual
    with pytest.raises(ValueError, match=HINT):
        step(other, make_batch(1))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies_are_bound_to_nothing(copied: Any, model: SRModel, batch: dict[str, Tensor]) -> None:
    step(model, batch)
    with pytest.raises(ValueError, match=HINT):
        copied(model.cri_perceptual)(batch["gt"], batch["gt"])


@pytest.mark.parametrize(
    "wrap", [lambda loss: loss, Composed, nn.Sequential, lambda loss: nn.ModuleDict({"clp": loss})]
)
def test_attribute_of_any_name(
    wrap: Any, model: SRModel, loss: Any, batch: dict[str, Tensor], records: Records
) -> None:
    """The loss is found wherever the model keeps it, not only as `cri_perceptual`."""
    model.cri_perceptual, model.cri_extra = None, wrap(loss)
    model.feed_data(batch)
    value, style = loss(batch["gt"] * 0.9, batch["gt"])
    assert style is None
    assert value > 0
    assert torch.equal(records.calls[-1].lr, batch["lq"])


@pytest.mark.parametrize("keep", [lambda loss: [loss], lambda loss: {"clp": loss}, lambda loss: {"all": (1, [loss])}])
def test_list_and_dict_attributes(
    keep: Any, model: SRModel, loss: Any, batch: dict[str, Tensor], records: Records
) -> None:
    model.extra_losses = keep(loss)
    model.feed_data(batch)
    loss((batch["gt"] * 0.9).requires_grad_(), batch["gt"])
    assert torch.equal(records.calls[-1].lr, batch["lq"])
    assert {"clp_pull_extra_losses", "clp_push_extra_losses"} <= set(step_log(model))


def step_log(model: SRModel) -> dict[str, float]:
    reduced: dict[str, float] = model.reduce_loss_dict({"l_pix": torch.tensor(1.0)})
    return reduced


def test_what_a_validation_measured_is_not_logged_as_a_steps(model: SRModel, batch: dict[str, Tensor]) -> None:
    """A process that validates would bring more keys to be reduced than the others, which all wait for each other."""
    model.feed_data(batch)
    with torch.no_grad():
        model.cri_perceptual(batch["gt"] * 0.9, batch["gt"])
    assert model.cri_perceptual.summary is not None
    assert set(step_log(model)) == {"l_pix"}
    assert {"clp_pull", "clp_push", "clp_active"} <= set(step(model, batch))


def test_a_loss_that_the_model_builds_itself_knows_model_and_iteration(
    model: SRModel, batch: dict[str, Tensor]
) -> None:
    model.cri_perceptual, model.cri_own = None, OwnLoss("vgg", **KEYWORDS, start_iter=3)
    model.feed_data(batch)
    sr = (batch["gt"] * 0.9).requires_grad_()
    assert model.cri_own(sr, batch["gt"]) == 0
    model.schedulers[0].last_epoch = 6  # as after a resume
    assert model.cri_own(sr, batch["gt"]) > 0


def test_schedulers_of_epochs_are_not_taken_for_iterations(model: SRModel, batch: dict[str, Tensor]) -> None:
    model.cri_perceptual = build_loss({**PERCEPTUAL, "start_iter": 2})
    model.schedulers[0].last_epoch = 0  # and stays so
    assert [step(model, batch, iteration)["l_percep"] > 0 for iteration in (1, 2, 3)] == [False, False, True]


def test_somebody_elses_loop_may_hand_over_the_same_number_every_time(model: SRModel, batch: dict[str, Tensor]) -> None:
    model.cri_perceptual = build_loss({**PERCEPTUAL, "start_iter": 2})
    values = []
    for _ in range(3):
        values.append(step(model, batch, 1)["l_percep"] > 0)
        model.schedulers[0].last_epoch += 1
    assert values == [False, False, True]


@pytest.mark.parametrize("built_by", ["BasicSR", "the model"])
def test_two_losses_of_the_same_settings_have_a_weight_each(
    built_by: str, model: SRModel, batch: dict[str, Tensor]
) -> None:
    own = {**KEYWORDS, "loss_weight": 100, "auto_weight": 0.1}
    build = {"BasicSR": lambda: build_loss({**PERCEPTUAL, **own}), "the model": lambda: OwnLoss("vgg", **own)}[built_by]
    both = [build() for _ in range(2)]
    model.cri_perceptual, model.cri_other = both
    model.feed_data(batch)
    weights: list[list[float]] = []
    for _ in range(2):
        sr = (batch["gt"] * 0.9).requires_grad_()
        both[0](sr, batch["gt"])
        both[1](torch.lerp(sr, F.interpolate(batch["lq"], scale_factor=SCALE), 0.5), batch["gt"])
        weights.append([float(loss.weight) for loss in both])
        model.schedulers[0].last_epoch += 1
    assert weights[0] == pytest.approx(weights[1])  # each measured the same again
    assert weights[0][0] != pytest.approx(weights[0][1], rel=0.01)


def test_composed_loss_in_training(model: SRModel, loss: Any, batch: dict[str, Tensor], records: Records) -> None:
    model.cri_perceptual = Composed(loss)
    log = step(model, batch)
    assert {"l_percep", "clp_pull", "clp_push", "clp_active"} <= set(log)
    assert torch.equal(records.calls[-1].lr, batch["lq"])


@pytest.mark.parametrize("keep", [Composed, lambda *losses: list(losses)])
def test_two_losses_in_one_attribute(
    keep: Any, model: SRModel, batch: dict[str, Tensor], tmp_path: Path, records: Records
) -> None:
    losses = [make_loss(tmp_path), make_loss(tmp_path)]
    model.cri_perceptual, model.cri_both = None, keep(*losses)
    model.feed_data(batch)
    for loss in losses:
        loss((batch["gt"] * 0.9).requires_grad_(), batch["gt"])
    assert all(torch.equal(call.lr, batch["lq"]) for call in records.calls)
    assert len(records.calls) == 2
    assert len({name for name in step_log(model) if name.startswith("clp_pull")}) == 2


def test_a_loss_that_is_held_twice_counts_once(model: SRModel, batch: dict[str, Tensor]) -> None:
    model.criteria = [model.cri_pix, model.cri_perceptual, model.cri_perceptual]
    assert {name for name in step(model, batch) if name.startswith("clp_pull")} == {"clp_pull"}


def test_in_a_loss_that_learns_something(model: SRModel, batch: dict[str, Tensor], records: Records) -> None:
    """As losses that are weighted by their uncertainty."""
    wrapper = Composed(model.cri_perceptual)
    wrapper.scale = nn.Parameter(torch.ones(()))
    model.cri_perceptual = wrapper
    assert "clp_pull" in step(model, batch)
    assert torch.equal(records.calls[-1].lr, batch["lq"])


def test_an_output_of_a_validation_is_nothing_to_compare_with(model: SRModel, batch: dict[str, Tensor]) -> None:
    model.feed_data(batch)
    model.output = torch.zeros(1, 3, 200, 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.cri_perceptual(model.net_g(model.lq), model.gt)


def test_a_crop_of_sr_beside_the_whole_lr_batch_is_warned_of_once(model: SRModel, batch: dict[str, Tensor]) -> None:
    model.feed_data(batch)
    model.output = sr = model.net_g(model.lq)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with model.cri_perceptual.negatives(model.lq[..., 2:-2, 2:-2]):
            model.cri_perceptual(sr[..., 8:-8, 8:-8], model.gt[..., 8:-8, 8:-8])
    with pytest.warns(UserWarning, match=r"If SR is a crop, pass its LR: with loss\.negatives\(lr\)"):
        model.cri_perceptual(sr[..., 8:-8, 8:-8], model.gt[..., 8:-8, 8:-8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.cri_perceptual(sr[..., 8:-8, 8:-8], model.gt[..., 8:-8, 8:-8])
