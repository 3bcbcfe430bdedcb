"""Every model of BasicSR in its own training loop: the LR that loss and metric see is the one of GT."""

import re
from functools import partialmethod
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from basicsr.data.prefetch_dataloader import CPUPrefetcher
from basicsr.utils import USMSharp
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from clp_basicsr import metrics
from clp_basicsr.hosts.video_validation import on_the_cpu
from hosts.model_matrix import FRAMES, MATRIX, OWN, clip_to_validate, options_for, options_without_lr, write_material
from hosts.options import Options
from hosts.pairing import Batches, check_pairs
from hosts.realesrgan import on_cpu
from hosts.records import CLP_KEYS, Call, Records, log_entries, log_text, scalars
from hosts.runs import train

__all__ = ["on_cpu"]

PAGE = Path(__file__).parents[2] / "docs" / "basicsr.md"

pytestmark = pytest.mark.usefixtures("on_cpu", "narrow_sharpening")


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


def test_no_model_of_basicsr_is_left_out() -> None:
    registered = {name for name, model in MODEL_REGISTRY if model.__module__.startswith("basicsr.")}
    assert registered == {name for name in MATRIX if not name.startswith("ThirdParty")} | {"StyleGAN2Model"}
    (table,) = re.findall(r"^## Every model_type$.*?^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert {name.removesuffix("_basicsr") for name in registered} == set(re.findall(r"`(\w+Model)`", table))


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


class Fed:
    """As little of a video model as a validation without metrics needs."""

    opt: ClassVar[Options] = {"val": {}}

    def feed_data(self, data: dict[str, Tensor]) -> None:
        self.lq = data["lq"]

    def dist_validation(self, data: dict[str, Tensor], error: Exception | None = None) -> None:
        self.feed_data(data)
        self.lq.squeeze_(0)
        if error is not None:
            raise error


def test_a_validation_without_a_gpu_leaves_its_batch_and_the_next_ones_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The training that goes on, also after a validation that failed, is fed its batches and no copies of them."""
    monkeypatch.setattr(Fed, "dist_validation", on_the_cpu(Fed.dist_validation))
    model, batch = Fed(), {"lq": torch.zeros(1, 3, 8, 8)}
    model.dist_validation(batch)
    assert batch["lq"].shape == (1, 3, 8, 8)
    model.feed_data(batch)
    assert model.lq is batch["lq"]
    with pytest.raises(RuntimeError, match="no disk"):
        model.dist_validation(batch, RuntimeError("no disk"))
    model.feed_data(batch)
    assert model.lq is batch["lq"]


@pytest.mark.parametrize("model_type", [name for name in MATRIX if name.startswith(("Video", "EDVR"))])
def test_validation_of_clips(model_type: str, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, where BasicSR's own keeps the metrics on one; the metric sees the LR of each frame."""
    seen: list[Call] = []

    def pull(sr: Tensor, target: Tensor, lr: Tensor, **_: object) -> float:
        seen.append(Call(sr, target, lr))
        return 0.25 * len(seen)

    monkeypatch.setattr(metrics, "clp_pull", pull)
    options = options_for(model_type, material)
    options["datasets"]["val"] = clip_to_validate(material, recurrent="Recurrent" in model_type)
    options["val"] = {"val_freq": 3, "save_img": False, "metrics": {"pull": {"type": "calculate_clp_pull"}}}
    experiment = train(tmp_path, options, *(("--import", OWN) if MATRIX[model_type].imports else ()))

    tried, *shown = seen  # as the model was made, on noise
    assert tried.sr.shape == (1, 3, 256, 256)
    assert len(shown) == FRAMES
    check_pairs(shown, [])
    mean = sum(0.25 * count for count in range(2, FRAMES + 2)) / FRAMES
    assert scalars(experiment)[3]["metrics/pull"] == scalars(experiment)[3]["metrics/pull/astronaut"] == mean
