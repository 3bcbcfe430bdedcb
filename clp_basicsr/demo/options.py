"""The demo's option file: the packaged YAML with a person's few choices written into it."""

from __future__ import annotations

import re
from pathlib import Path

TEMPLATE = Path(__file__).with_name("train_demo_x4.yml")
ITERATIONS = 900


def experiment_name(model: str) -> str:
    """Return the name of the run, and so of its folder below ``experiments/``."""
    return f"clp_demo_{re.sub(r'[^A-Za-z0-9]+', '_', Path(model).name)}"


def write_options(path: Path, model: str, weights: str | None, iterations: int) -> None:
    """Write a complete BasicSR option file to ``path``."""
    text = TEMPLATE.read_text(encoding="utf-8")
    text = _substituted(text, r"(?m)^name: .*$", f"name: {experiment_name(model)}")
    text = _substituted(text, r"total_iter: \d+", f"total_iter: {iterations}")
    milestones = [iterations * share // 100 for share in (50, 75, 90)]
    text = _substituted(text, r"milestones: \[[\d, ]+\]", f"milestones: {milestones}")
    text = _substituted(text, r"print_freq: 50", f"print_freq: {min(50, iterations)}")
    lines = [f"model: {_quoted(model)}"] + ([f"weights: {_quoted(weights)}"] if weights else [])
    text = _substituted(text, r"model: efficientnet_lite0", "\n    ".join(lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _substituted(text: str, pattern: str, replacement: str) -> str:
    changed, count = re.subn(pattern, lambda _: replacement, text)
    if count != 1:
        raise ValueError(f"'{TEMPLATE}' must hold '{pattern}' once, but holds it {count} times.")
    return changed


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"\w+", value) else "'" + value.replace("'", "''") + "'"
