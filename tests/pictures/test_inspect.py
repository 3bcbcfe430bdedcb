"""``clp-basicsr inspect``, from outside: its files, what is in them, what it refuses."""

from __future__ import annotations

import base64
import importlib.util
import io
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from limits import small_files
from PIL import Image
from torch import Tensor

from clp_basicsr import CLPLoss
from clp_basicsr.cli import main
from clp_basicsr.inspection import inspect
from clp_basicsr.pictures.sheet import draw_sheet

Photos = tuple[Tensor, Tensor]
Command = Callable[..., int]
LAYERS = ["block1", "block3=0.5"]

needs_basicsr = pytest.mark.skipif(importlib.util.find_spec("basicsr") is None, reason="BasicSR is not installed")


class Page(HTMLParser):
    """What a page shows and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: dict[str, Image.Image] = {}
        self.loads: list[str] = []
        self.inputs: list[str | None] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)
        source = given.get("src") or given.get("href")
        if source is not None and source.startswith("data:image/png;base64,"):
            data = base64.b64decode(source.partition(",")[2], validate=True)
            self.images[given.get("id") or str(given.get("alt"))] = Image.open(io.BytesIO(data))
        elif source is not None:
            self.loads.append(source)
        if tag == "input":
            self.inputs.append(given.get("type"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def files(photo_batch: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``gt.png`` and ``lr.png``, which is the working directory."""
    for name, images in zip(("gt", "lr"), photo_batch):
        pixels = (images[0].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*flags: str) -> int:
    return main(["inspect", "--gt", "gt.png", "--lr", "lr.png", *flags])


def array(image: Image.Image | Path) -> np.ndarray:
    opened = Image.open(image) if isinstance(image, Path) else image
    return np.asarray(opened.convert("RGB"), dtype=np.float64)


def test_the_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--layers", *LAYERS, "-o", "out") == 0
    printed = capsys.readouterr().out
    assert "out/inspect_gt.png" in printed
    assert "out/inspect_gt.html" in printed
    sheet = array(files / "out/inspect_gt.png")
    assert sheet.shape[1] == 1700
    assert 700 < sheet.shape[0] < 1500
    assert sheet.std() > 20

    text = (files / "out/inspect_gt.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert "://" not in text
    assert page.inputs == ["range"]
    assert "bicubic, since none was given" in page.text
    assert "block1" in page.text
    assert "block3" in page.text
    shown = {name: array(image) for name, image in page.images.items()}
    assert set(shown) == {"image-LR", "image-SR", "image-GT", "maps of every layer"}
    np.testing.assert_array_equal(shown["image-GT"], array(files / "gt.png"))
    np.testing.assert_array_equal(shown["image-SR"], shown["image-LR"])
    assert 0 < np.abs(shown["image-LR"] - shown["image-GT"]).mean() < 30
    np.testing.assert_array_equal(shown["maps of every layer"], sheet)


def test_a_full_disk_leaves_what_was_there(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--layers", LAYERS[0]) == 0
    made = {path: path.read_bytes() for path in files.iterdir()}
    with small_files(50_000):
        assert run("--layers", *LAYERS) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"clp-basicsr inspect: '\S+/inspect_gt.png' could not be written: File.*free there.*\n", said)
    assert {path: path.read_bytes() for path in files.iterdir()} == made


def test_panels_and_their_scales(photo_batch: Photos) -> None:
    gt, lr = (each[:1] for each in photo_batch)
    loss = CLPLoss("efficientnet_lite0", layer_weights={"block1": 1.0, "block3": 1.0}, negatives=["lr", "lagged"])
    seen = inspect(loss, (gt * 0.9).clamp(0, 1), gt, lr, tile=112, overlap=16)
    figure = draw_sheet(seen, "a photo", "SR: darker")
    titled = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert len(titled) == 5 * 3
    view = seen.layers["block3"]
    drawn = {
        name: titled[f"block3: {text}"].images[0]
        for name, text in (
            ("to_target", f"d(sr, gt) = {view.numbers.to_target:.4g}"),
            ("to_negative", f"d(sr, lr) = {view.numbers.to_negative:.4g}"),
            ("pull", f"pull = {view.numbers.pull:.3f}"),
            ("push", f"push = {view.numbers.push:.3f}"),
        )
    }
    for name, image in drawn.items():
        np.testing.assert_array_equal(np.asarray(image.get_array()), getattr(view.maps, name).numpy())
    assert drawn["to_target"].get_clim() == drawn["to_negative"].get_clim()
    first = titled[f"block1: pull = {seen.layers['block1'].numbers.pull:.3f}"].images[0]
    assert first.get_clim() == drawn["pull"].get_clim() == drawn["push"].get_clim()
    gradients = [axes.images[0] for name, axes in titled.items() if "gradient" in name]
    assert len({image.get_clim() for image in gradients}) == 1
    assert len(gradients) == 3
    said = figure.get_supxlabel()
    assert "4 overlapping tiles" in said
    assert "only a training run has them: lagged" in said
    bars = [bar.get_width() for bar in titled["what each layer contributes (%)"].patches]
    assert sum(bars) == pytest.approx(200)


def test_every_distance_and_gt_itself_can_be_drawn(photo_batch: Photos) -> None:
    gt, lr = (each[:1] for each in photo_batch)
    for keywords in ({"distance": "cosine"}, {"distance": "l1"}, {"criterion": "infonce"}):
        loss = CLPLoss("random_convs", **keywords)  # type: ignore[arg-type]
        figure = draw_sheet(inspect(loss, gt, gt, lr), "GT")
        figure.canvas.draw()
        assert "nan" not in "".join(axes.get_title() for axes in figure.axes)


def test_sr_from_a_file_and_keywords_from_the_option_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = {"type": "CLPLoss", "model": "random_convs", "margin": 2.0, "layer_weights": {"conv2": 1.0}}
    (files / "run.yml").write_text(yaml.safe_dump({"train": {"perceptual_opt": block}}))
    assert run("-opt", "run.yml", "--sr", "gt.png") == 0
    assert "random_convs, FixedMarginTriplet, l2" in capsys.readouterr().out
    assert "conv1" not in (files / "inspect_gt.html").read_text(encoding="utf-8")
    assert (
        run("-opt", "run.yml", "--model", "efficientnet_lite0", "--layers", "block1", "--set", "margin=relative") == 0
    )
    assert "efficientnet_lite0, RelativeTriplet, l2" in capsys.readouterr().out


def test_another_name_of_the_files_network_keeps_its_weights(files: Path) -> None:
    block = {"type": "CLPLoss", "model": "vgg", "weights": "random", "layer_weights": {"relu1_1": 1.0}}
    (files / "vgg.yml").write_text(yaml.safe_dump({"train": {"perceptual_opt": block}}))
    assert main(["inspect", "--gt", "gt.png", "--lr", "lr.png", "-opt", "vgg.yml", "--model", "vgg19"]) == 0


def test_the_weights_of_a_presets_network_are_not_another_ones(files: Path) -> None:
    block = {"type": "CLPLoss", "preset": "aecr", "weights": "no file of random_convs"}
    (files / "preset.yml").write_text(yaml.safe_dump({"train": {"perceptual_opt": block}}))
    flags = ["-opt", "preset.yml", "--model", "random_convs"]
    assert main(["inspect", "--gt", "gt.png", "--lr", "lr.png", *flags]) == 0


def test_gt_in_the_place_of_lr_is_said(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--gt", "gt.png", "--lr", "gt.png", "--model", "random_convs"]) == 0
    assert "SR equals GT: the loss is 0" in capsys.readouterr().out


@needs_basicsr
def test_a_name_is_no_formula(files: Path) -> None:
    (files / "sr_$x^$.png").write_bytes((files / "gt.png").read_bytes())
    assert run("--layers", "block1", "--sr", "sr_$x^$.png", "-o", "out") == 0


def test_sr_of_one_channel(files: Path) -> None:
    """A network trained with BasicSR's `color: y`."""
    import clp_basicsr

    clp_basicsr.register()
    from basicsr.archs.srvgg_arch import SRVGGNetCompact
    from basicsr.utils.color_util import rgb2ycbcr

    torch.manual_seed(0)
    settings = {"num_in_ch": 1, "num_out_ch": 1, "num_feat": 4, "num_conv": 1, "upscale": 4}
    network = SRVGGNetCompact(**settings).eval()
    torch.save({"params": network.state_dict()}, files / "net_g.pth")
    loss = {"type": "CLPLoss", "model": "random_convs"}
    options = {"network_g": {"type": "SRVGGNetCompact", **settings}, "train": {"perceptual_opt": loss}}
    (files / "run.yml").write_text(yaml.safe_dump(options))
    assert run("-opt", "run.yml", "--checkpoint", "net_g.pth") == 0
    page = Page((files / "inspect_gt.html").read_text(encoding="utf-8"))
    lr = torch.from_numpy(rgb2ycbcr((array(files / "lr.png") / 255).astype(np.float32), y_only=True))[None, None]
    with torch.no_grad():
        expected = (network(lr).clamp(0, 1)[0, 0] * 255).round().numpy()
    np.testing.assert_allclose(array(page.images["image-SR"]), np.repeat(expected[..., None], 3, -1), atol=1)


@needs_basicsr
def test_sr_from_a_checkpoint(files: Path, photo_batch: Photos) -> None:
    import clp_basicsr

    clp_basicsr.register()
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    torch.manual_seed(0)
    settings = {"num_feat": 4, "num_conv": 1, "upscale": 4}
    plain, ema = SRVGGNetCompact(**settings).eval(), SRVGGNetCompact(**settings).eval()
    torch.save({"params": plain.state_dict(), "params_ema": ema.state_dict()}, files / "net_g.pth")
    options = {
        "network_g": {"type": "SRVGGNetCompact", **settings},
        "train": {"perceptual_opt": {"type": "CLPLoss", "model": "random_convs"}},
    }
    (files / "run.yml").write_text(yaml.safe_dump(options))
    assert run("-opt", "run.yml", "--checkpoint", "net_g.pth") == 0
    page = Page((files / "inspect_gt.html").read_text(encoding="utf-8"))
    lr = torch.from_numpy(array(files / "lr.png") / 255).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = (ema(lr).clamp(0, 1)[0].permute(1, 2, 0) * 255).round().numpy()
    np.testing.assert_allclose(array(page.images["image-SR"]), expected, atol=1)

    options["network_g"]["num_feat"] = 8  # type: ignore[index]
    (files / "run.yml").write_text(yaml.safe_dump(options))
    assert run("-opt", "run.yml", "--checkpoint", "net_g.pth") == 1


@needs_basicsr
def test_windows_are_padded_and_cut() -> None:
    from clp_basicsr.hosts.basicsr_network import super_resolve

    seen: list[Tensor] = []

    class Twice(torch.nn.Module):
        def forward(self, lr: Tensor) -> Tensor:
            seen.append(lr)
            return lr.repeat_interleave(2, -1).repeat_interleave(2, -2)

    lr = torch.rand(1, 3, 9, 12)
    assert torch.equal(super_resolve(Twice(), lr, window=4), Twice()(lr))
    assert seen[0].shape[-2:] == (12, 12)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--gt", "no.png"], "`--gt` must name an image file, but there is none at 'no.png'"),
        (["--sr", "text.yml"], "`--sr` must name an image file, but 'text.yml' cannot be read"),
        (["--sr", "lr.png"], "must have the same shape"),
        (["--lr", "big.png"], "must not be larger than `sr`"),
        (["--checkpoint", "net.pth"], "`--checkpoint` must stand beside `-opt FILE.yml`"),
        (["-opt", "text.yml"], "block `type: CLPLoss` below `train:`"),
        (["-opt", "no.yml"], "there is none at 'no.yml'"),
        (["--layers", "blok1"], "Did you mean 'block1'?"),
        (["--set", "margin"], "`--set` must be followed by KEY=VALUE"),
        (["--set", "margn=2"], "Did you mean 'margin'?"),
        (["--tile", "100"], "`tile` must be more than 192 pixels"),
        (["-o", "text.yml"], "Flag `-o` must name a folder, or a place where one can be made, but got 'text.yml'"),
    ],
)
def test_mistakes(flags: list[str], said: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "text.yml").write_text("train: {pixel_opt: {type: L1Loss}}")
    Image.new("RGB", (200, 200)).save(files / "big.png")
    assert run(*flags) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("clp-basicsr inspect: ")
    assert not list(files.glob("inspect_*"))


def test_without_matplotlib(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run() == 1
    assert "pip install '.[pictures]'" in capsys.readouterr().err
