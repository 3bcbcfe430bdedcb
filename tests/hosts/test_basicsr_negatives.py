"""Negatives that only a host can bring: files beside the pairs, and earlier states of the network."""

import importlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from hosts.options import PERCEPTUAL, Options, train_options
from hosts.records import CLP_KEYS, Records, log_entries
from hosts.runs import isolated, python, succeeded, train


def with_files(folder: Path, neg: Any, **train: Any) -> Options:
    options = train_options(folder, perceptual={**PERCEPTUAL, "negatives": ["lr", "files"]}, **train)
    options["datasets"]["train"] |= {"type": "PairedNegativeDataset", "dataroot_neg": neg}
    return options


@pytest.mark.parametrize("several", [False, True])
def test_files_are_cropped_and_flipped_as_gt_is(
    several: bool, triples: Path, tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clp_basicsr.negatives.supplied import Supplied

    seen: list[tuple[torch.Tensor, int]] = []
    original = Supplied.__call__

    def watched(self: Supplied, step: Any) -> Any:
        negatives = original(self, step)
        seen.extend((negative.images + step.target, len(negatives)) for negative in negatives)
        return negatives

    monkeypatch.setattr(Supplied, "__call__", watched)
    folder = str(triples / "neg")
    experiment = train(tmp_path, with_files(triples, [folder, folder] if several else folder, total_iter=3))

    assert len(seen) == (6 if several else 3)
    for total, count in seen:
        assert count == (2 if several else 1)
        torch.testing.assert_close(total, torch.ones_like(total))
    assert len({call.target.sum().item() for call in records.calls}) == 3
    assert all(set(values) >= CLP_KEYS for values in log_entries(experiment).values())


def test_the_pairs_are_those_of_the_plain_data_set(triples: Path, tmp_path: Path, records: Records) -> None:
    """The third image must not disturb the random choices of crop and flip."""
    train(tmp_path / "plain", train_options(triples, total_iter=2))
    train(tmp_path / "files", with_files(triples, str(triples / "neg"), total_iter=2))
    plain, files = records.calls[:2], records.calls[2:]
    assert all(torch.equal(*pair) for pair in zip([call.target for call in plain], [call.target for call in files]))


@pytest.mark.parametrize(
    ("neg", "said"),
    [(None, "needs `dataroot_neg`"), ("nowhere", "must be a folder, but there is none"), (".", "4 of 4 are not in")],
)
def test_data_set_without_its_files(neg: str | None, said: str, triples: Path, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        train(tmp_path, with_files(triples, neg))


def test_files_below_the_home_folder(triples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As BasicSR takes `dataroot_gt` and `dataroot_lq`."""
    monkeypatch.setenv("HOME", str(triples))
    options = with_files(triples, "~/neg", total_iter=1)
    options["datasets"]["train"] |= {"dataroot_gt": "~/gt", "dataroot_lq": "~/lq"}
    train(tmp_path, options)


def test_data_set_in_a_process_that_has_nothing_but_it(tmp_path: Path) -> None:
    """As a worker under torchrun, which is spawned and begins by unpickling the data set's class."""
    module = "clp_basicsr.hosts.basicsr_dataset"
    pickled = pickle.dumps(importlib.import_module(module).PairedNegativeDataset)
    code = f"import pickle; print(pickle.loads({pickled!r}).__module__)"
    assert succeeded(python("-c", code, folder=tmp_path)).strip() == module


def test_files_of_another_size_than_gt(triples: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"`dataroot_neg` must hold images of the size of their GT, but '.*lq/\w+.png'"
    ):
        train(tmp_path, with_files(triples, str(triples / "lq")))


def test_files_asked_for_but_not_brought(pairs: Path, tmp_path: Path) -> None:
    options = train_options(pairs, perceptual={**PERCEPTUAL, "negatives": "files"})
    with pytest.raises(ValueError, match="PairedNegativeDataset"):
        train(tmp_path, options)


def test_lagged_copies_follow_the_training(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clp_basicsr.negatives.lagged import LaggedNetwork

    refreshes: list[int] = []
    original = LaggedNetwork._refreshed

    def watched(self: LaggedNetwork, current: Any, iteration: int) -> Any:
        network = original(self, current, iteration)
        refreshes.append(self.refreshed)
        return network

    monkeypatch.setattr(LaggedNetwork, "_refreshed", watched)
    lagged = {"type": "lagged", "every": 3, "start": 2}
    options = train_options(pairs, perceptual={**PERCEPTUAL, "negatives": ["lr", lagged]}, total_iter=8, ema_decay=0.9)
    train(tmp_path, options)
    assert refreshes == [2, 2, 2, 5, 5, 5, 8]

    refreshes.clear()
    options["train"]["total_iter"] = 10
    train(tmp_path, options, "--auto_resume")
    assert refreshes == [9, 9]  # the iterations go on, the copy starts from the network as it is


def test_lagged_under_two_wrappers(pairs: Path, tmp_path: Path) -> None:
    from basicsr.models import build_model

    options = train_options(pairs, perceptual={**PERCEPTUAL, "negatives": ["lr", "lagged"]})
    options |= {"is_train": True, "dist": False, "rank": 0, "world_size": 1}
    with isolated(tmp_path):
        model = build_model(options)
    model.net_g = torch.nn.DataParallel(model.net_g)
    gt = torch.rand(2, 3, 32, 32)
    model.feed_data({"gt": gt, "lq": torch.nn.functional.avg_pool2d(gt, 4)})
    model.optimize_parameters(1)
    assert model.get_current_log()["l_percep"] > 0
