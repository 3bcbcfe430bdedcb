"""``val: clp_panels``: pictures in TensorBoard, and nothing else in the run that differs."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clp_basicsr import CLPLoss
from clp_basicsr.hosts import basicsr_launch, basicsr_panels
from hosts.options import PERCEPTUAL, Options, evaluation_options, train_options, with_validation, write
from hosts.records import log_entries, log_text
from hosts.runs import isolated, train

STATEFUL = {**PERCEPTUAL, "negatives": ["lr", {"type": "blur", "kernel": [3, 5]}], "auto_weight": 0.1}


def options(pairs: Path, panels: int | None, **train_section: Any) -> Options:
    made = with_validation(train_options(pairs, perceptual=STATEFUL, **train_section), pairs, every=3)
    if panels is not None:
        made["val"]["clp_panels"] = panels
    return made


def images(experiment: Path) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Every picture of the run's TensorBoard file, by tag: iteration and pixels."""
    folder = experiment.parents[1] / "tb_logger" / experiment.name
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {
        tag: [
            (event.step, np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))) for event in events.Images(tag)
        ]
        for tag in events.Tags()["images"]
    }


def test_pictures_come_and_the_training_stays_the_same(pairs: Path, tmp_path: Path) -> None:
    with_panels = train(tmp_path / "with", options(pairs, 2))
    without = train(tmp_path / "without", options(pairs, None))
    sent = images(with_panels)
    assert set(sent) == {"clp_panels/held_out/000", "clp_panels/held_out/001"}
    for pictures in sent.values():
        assert {step for step, _ in pictures} == {3, 5}  # BasicSR validates once more when it has ended
        assert all(pixels.shape[1] == 1700 for _, pixels in pictures)
        assert all(pixels.std() > 20 for _, pixels in pictures)
    first, second = (pictures[0][1] for pictures in sent.values())
    assert first.shape != second.shape or (first != second).any()
    assert images(without) == {}

    weights = [
        torch.load(each / "models/net_g_latest.pth", weights_only=True)["params"] for each in (with_panels, without)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert log_entries(with_panels) == log_entries(without)


def test_what_keeps_them_away_is_said_once(pairs: Path, tmp_path: Path) -> None:
    made = options(pairs, 1)
    made["logger"]["use_tb_logger"] = False
    assert (
        log_text(train(tmp_path / "log", made)).count("`val: clp_panels` draws nothing: there is no TensorBoard") == 1
    )
    made = options(pairs, 1)
    del made["train"]["perceptual_opt"]
    assert log_text(train(tmp_path / "loss", made)).count("draws nothing: SRModel holds no CLPLoss") == 1


def test_they_are_for_trainings(pairs: Path, tmp_path: Path) -> None:
    network = train(tmp_path, train_options(pairs, total_iter=1)) / "models" / "net_g_latest.pth"
    made = evaluation_options(pairs, network)
    made["val"]["clp_panels"] = 1
    with isolated(tmp_path):
        basicsr_launch.test(["-opt", str(write(made, tmp_path, "test.yml"))])
    text = log_text(tmp_path / "results" / "tiny_test")
    assert "`val: clp_panels` draws nothing: they are for trainings. Of single images: clp-basicsr inspect." in text


def test_a_validation_without_gt_is_compared_with_nothing(pairs: Path, tmp_path: Path) -> None:
    """And not with the GT of the last training step, which BasicSR's model still has."""
    made = options(pairs, 1)
    validation = {"type": "SingleImageDataset", "dataroot_lq": str(pairs / "lq"), "io_backend": {"type": "disk"}}
    made["datasets"]["val"] = {"name": "held_out", **validation}
    made["val"]["metrics"] = None
    experiment = train(tmp_path, made)
    assert "could not draw" not in log_text(experiment)
    assert not images(experiment)


def test_mistakes_show_before_the_training(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="`val: clp_panels` must be a whole number >= 0, but got True"):
        train(tmp_path / "a", options(pairs, True))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install '.\[pictures\]'"):
        train(tmp_path / "b", options(pairs, 1))
    train(tmp_path / "c", options(pairs, 0, total_iter=2))


class Host:
    """As little of a model as a validation needs."""

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.loss = CLPLoss("random_convs", diagnostics=False)
        self.visuals: dict[str, torch.Tensor] = {}

    def get_current_visuals(self) -> dict[str, torch.Tensor]:
        return self.visuals

    def validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False) -> str:
        assert self.get_current_visuals() is self.visuals
        if self.opt.get("fails"):
            raise RuntimeError("no disk")
        return "done"


class Sent(list[str]):
    """A TensorBoard writer: the tags, and beside them the last picture."""

    picture: np.ndarray

    def add_image(self, tag: str, image: np.ndarray, step: int, dataformats: str) -> None:
        assert image.ndim == 3
        self.append(tag)
        self.picture = image


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> Any:
    host = type("AHost", (Host,), {"validation": Host.validation, "__init__": Host.__init__})
    basicsr_panels.attach(host, pytest.fail)
    basicsr_panels.attach(host, pytest.fail)

    def validate(visuals: dict[str, torch.Tensor], **opt: Any) -> Sent:
        model, sent = host({"val": {"clp_panels": 1}, **opt}), Sent()
        model.visuals = visuals
        try:
            assert model.validation(SimpleNamespace(dataset=SimpleNamespace(opt={"name": "x"})), 7, sent) == "done"
        finally:
            assert "get_current_visuals" not in vars(model)
        return sent

    return validate


def still(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape)))


def test_only_the_first_process_draws(validated: Any) -> None:
    visuals = {"lq": still(1, 3, 8, 8), "result": still(1, 3, 16, 16), "gt": still(1, 3, 16, 16)}
    assert validated(visuals, rank=0) == ["clp_panels/x/000"]
    assert validated(visuals, rank=1) == []
    assert validated({"lq": visuals["lq"], "result": visuals["result"]}) == []
    with pytest.raises(RuntimeError, match="no disk"):
        validated(visuals, fails=True)


def test_a_panel_that_cannot_be_drawn_is_said_once_and_ends_nothing() -> None:
    said: list[str] = []
    host = type("AHost", (Host,), {"validation": Host.validation, "__init__": Host.__init__})
    basicsr_panels.attach(host, said.append)
    model, sent = host({"val": {"clp_panels": 1}}), Sent()
    model.visuals = {"lq": still(1, 3, 8, 8), "result": still(1, 3, 16, 16), "gt": still(1, 3, 15, 16)}
    for _ in range(2):
        assert model.validation(SimpleNamespace(dataset=SimpleNamespace(opt={"name": "x"})), 7, sent) == "done"
    assert sent == []
    (line,) = said
    assert "could not draw image 0 of 'clp_panels/x': " in line
    assert line.endswith(".")
    assert not line.endswith("..")
    assert "same shape" in line


def validate(model: Any, sent: Sent) -> Any:
    return model.validation(SimpleNamespace(dataset=SimpleNamespace(opt={"name": "x"})), 7, sent)


def images_of_one_size() -> dict[str, torch.Tensor]:
    return {"lq": still(1, 3, 8, 8), "result": still(1, 3, 16, 16), "gt": still(1, 3, 16, 16)}


def new_host(said: list[str]) -> Any:
    host = type("AHost", (Host,), {"validation": Host.validation, "__init__": Host.__init__})
    basicsr_panels.attach(host, said.append)
    return host


@pytest.mark.parametrize("calls_its_parents", [False, True])
def test_a_model_with_a_validation_of_its_own(calls_its_parents: bool) -> None:
    """As HiFaceGANModel; each image is drawn once."""
    said: list[str] = []

    class Child(new_host(said)):  # type: ignore[misc]
        def validation(self, *arguments: Any) -> Any:
            return super().validation(*arguments) if calls_its_parents else [self.get_current_visuals(), "done"][1]

    model, sent = Child({"val": {"clp_panels": 3}}), Sent()
    model.visuals = images_of_one_size()
    assert validate(model, sent) == "done"
    assert sent == ["clp_panels/x/000"]
    assert not said


def test_a_validation_of_a_mixin() -> None:
    class Mixin:
        visuals: dict[str, torch.Tensor]

        def validation(self, *_: Any) -> Any:
            return self.get_current_visuals()  # type: ignore[attr-defined]

    model, sent = type("Child", (Mixin, new_host([])), {})({"val": {"clp_panels": 3}}), Sent()
    model.visuals = images_of_one_size()
    assert validate(model, sent) is model.visuals
    assert sent == ["clp_panels/x/000"]


def test_a_validation_with_arguments_of_its_own() -> None:
    said: list[str] = []

    class Child(new_host(said)):  # type: ignore[misc]
        def validation(self, dataloader: Any, current_iter: int, save_img: bool = False) -> Any:
            return self.get_current_visuals(), save_img

    model = Child({"val": {"clp_panels": 1}})
    model.visuals = images_of_one_size()
    assert model.validation(SimpleNamespace(), 5, save_img=True) == (model.visuals, True)
    assert len(said) == 1
    assert "there is no TensorBoard log" in said[0]
    with pytest.raises(TypeError, match="current_iter"):
        model.validation(SimpleNamespace())


def test_a_validation_that_shows_no_image_is_said_once() -> None:
    """As GFPGANModel's."""
    said: list[str] = []

    class Child(new_host(said)):  # type: ignore[misc]
        def validation(self, *_: Any) -> None: ...

    model, sent = Child({"val": {"clp_panels": 3}}), Sent()
    for _ in range(2):
        validate(model, sent)
    assert sent == []
    assert said == ["`val: clp_panels` draws nothing: the validation of Child asks for no image (get_current_visuals)."]


def test_a_mirrored_clip_is_shown_by_its_centre(validated: Any) -> None:
    """VideoRecurrentModel appends the clip in reverse for `flip_seq`."""
    clip = still(1, 5, 3, 8, 8)
    sr_and_gt = {"result": still(1, 3, 16, 16), "gt": still(3, 16, 16)[None]}

    def picture(lr: torch.Tensor, **val: Any) -> np.ndarray:
        drawn: np.ndarray = validated({"lq": lr, **sr_and_gt}, val={"clp_panels": 1, **val}).picture
        return drawn

    centre = picture(clip[:, 2])
    assert (picture(clip) == centre).all()
    assert (picture(torch.cat([clip, clip.flip(1)], 1), flip_seq=True) == centre).all()
    assert (picture(clip[:, 1]) != centre).any()


def test_clips(validated: Any) -> None:
    clip = {"lq": still(1, 3, 3, 8, 8), "result": still(1, 3, 3, 16, 16), "gt": still(1, 3, 3, 16, 16)}
    assert validated(clip) == ["clp_panels/x/000"]
    assert validated({**clip, "result": still(1, 3, 16, 16), "gt": still(1, 3, 16, 16)}) == ["clp_panels/x/000"]
