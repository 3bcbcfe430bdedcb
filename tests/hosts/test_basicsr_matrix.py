"""Every model of BasicSR in its own training loop: the LR that the loss sees is the one of its GT."""

from functools import partialmethod
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from basicsr.data.prefetch_dataloader import CPUPrefetcher
from basicsr.utils import USMSharp
from torch import Tensor

from hosts.model_matrix import MATRIX, OWN, options_for, options_without_lr, write_material
from hosts.options import CROP, SCALE
from hosts.realesrgan import on_cpu
from hosts.records import CLP_KEYS, Call, Records, log_entries, log_text
from hosts.runs import train

__all__ = ["on_cpu"]

pytestmark = pytest.mark.usefixtures("on_cpu", "narrow_sharpening")

Batches = list[dict[str, Tensor]]


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    write_material(folder)
    return folder


@pytest.fixture
def narrow_sharpening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real-ESRGAN's blur of 50 pixels takes seconds a step on a CPU: its data set cuts 400 x 400."""
    monkeypatch.setattr(USMSharp, "__init__", partialmethod(USMSharp.__init__, radius=10))


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """What the data set gave the training loop, in order."""
    given: Batches = []
    following = CPUPrefetcher.next

    def keep(self: CPUPrefetcher) -> dict[str, Tensor] | None:
        batch: dict[str, Tensor] | None = following(self)
        if batch is not None:
            given.append({name: batch[name].clone() for name in ("lq", "gt") if name in batch})
        return batch

    monkeypatch.setattr(CPUPrefetcher, "next", keep)
    return given


def run(model_type: str, material: Path, folder: Path, **changes: object) -> Path:
    imports = MATRIX[model_type].imports
    return train(folder, options_for(model_type, material, **changes), *(("--import", imports) if imports else ()))


@pytest.mark.parametrize("model_type", MATRIX)
def test_lr_is_the_one_of_gt(
    model_type: str, material: Path, tmp_path: Path, records: Records, batches: Batches
) -> None:
    row = MATRIX[model_type]
    logged = log_entries(run(model_type, material, tmp_path))

    assert set(logged) == set(range(1, row.steps + 1))
    assert all(set(values) >= {row.percep, *CLP_KEYS} for values in logged.values())
    check_pairs(records.calls, batches[: row.steps])
    if row.sees is None:
        check_pool(records.calls)
    else:
        seen = [row.sees(**batch) for batch in batches[: row.steps]]
        assert torch.equal(torch.cat([call.lr for call in records.calls]), torch.cat([lr for lr, _ in seen]))
        assert torch.equal(torch.cat([call.target for call in records.calls]), torch.cat([gt for _, gt in seen]))


def check_pairs(calls: list[Call], batches: Batches) -> None:
    """Of all LR images there were, other frames of a clip among them, the one given with a GT is the nearest to it."""
    targets, lrs = (small(images) for images in zip(*((call.target, call.lr) for call in calls)))
    there = torch.cat([lrs, *(small([batch["lq"].flatten(0, -4)]) for batch in batches if "lq" in batch)])
    own = (lrs - targets).abs().mean((1, 2, 3))
    distances = (there[None] - targets[:, None]).abs().mean((2, 3, 4))
    same = (there[None] == lrs[:, None]).flatten(2).all(2)
    assert not same.all(1).any()
    assert own.max() < 0.01
    assert (distances.masked_fill(same, 1).min(1).values > 3 * own).all()


def small(images: list[Tensor]) -> Tensor:
    """Return images of any size as area-downsampled GT: LR of a quarter of the size stays what it is."""
    return F.adaptive_avg_pool2d(torch.cat(list(images)), CROP // SCALE)


def check_pool(calls: list[Call]) -> None:
    """The second step's pairs are those of the first in another order, the third's are not."""
    first, second, third = (list(call.target) for call in calls)
    assert all(any(torch.equal(target, earlier) for earlier in first) for target in second)
    assert not any(torch.equal(target, earlier) for target in third for earlier in first)


@pytest.mark.parametrize("model_type", MATRIX)
def test_what_cannot_work_is_said_in_the_first_iteration(
    model_type: str, material: Path, tmp_path: Path, batches: Batches
) -> None:
    """However late the loss has its turn: here no data set brings the negatives it asks for."""
    late = {"perceptual": {"negatives": "files", "start_iter": 5000}, "net_d_init_iters": 5000}
    with pytest.raises(ValueError, match="`dataroot_neg: FOLDER`"):
        run(model_type, material, tmp_path, **late)
    assert len(batches) == 1


@pytest.mark.parametrize("model_type", [name for name, row in MATRIX.items() if row.discriminator])
def test_warm_up_of_a_discriminator(model_type: str, material: Path, tmp_path: Path, records: Records) -> None:
    logged = log_entries(run(model_type, material, tmp_path, net_d_init_iters=1))
    assert not {"l_g_percep", *CLP_KEYS} & set(logged[1])
    assert {"l_g_percep", *CLP_KEYS} <= set(logged[2])


def test_a_model_that_keeps_lr_elsewhere_says_so_in_the_first_iteration(
    material: Path, tmp_path: Path, batches: Batches
) -> None:
    options = options_for("ThirdPartyLoop", material, {"start_iter": 5000}) | {"lq_name": "low"}
    with pytest.raises(ValueError, match=r"bound to a ThirdPartyLoop, which must hold the LR batch in `lq`"):
        train(tmp_path, options, "--import", OWN)
    assert len(batches) == 1


def test_a_model_without_a_perceptual_loss_trains_and_says_so_once(
    material: Path, tmp_path: Path, records: Records
) -> None:
    experiment = train(tmp_path, options_without_lr(material), "--import", OWN)
    assert set(log_entries(experiment)) == {1, 2}
    warning = "StyleGAN2Model has not built the CLPLoss of `train: perceptual_opt`: this run trains without it"
    assert log_text(experiment).count(warning) == 1
    assert not records.calls
