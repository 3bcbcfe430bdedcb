"""The demo's option file: the packaged YAML with a person's few choices written into it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from clp_basicsr.hosts.options.encoding import read_text

TEMPLATE = Path(__file__).with_name("train_demo_x4.yml")
ITERATIONS = 900


def experiment_name(model: str) -> str:
    """Return the name of the run, and so of its folder below ``experiments/``."""
    return f"clp_demo_{re.sub(r'[^A-Za-z0-9]+', '_', Path(model).name)}"


def options_text(model: str, weights: str | None, iterations: int) -> str:
    """Return a complete BasicSR option file."""
    text = TEMPLATE.read_text(encoding="utf-8")
    text = _substituted(text, r"(?m)^name: .*$", f"name: {experiment_name(model)}")
    text = _substituted(text, r"total_iter: \d+", f"total_iter: {iterations}")
    milestones = [iterations * share // 100 for share in (50, 75, 90)]
    text = _substituted(text, r"milestones: \[[\d, ]+\]", f"milestones: {milestones}")
    text = _substituted(text, r"print_freq: 50", f"print_freq: {min(50, iterations)}")
    lines = [f"model: {_quoted(model)}"] + ([f"weights: {_quoted(weights)}"] if weights else [])
    return _substituted(text, r"model: efficientnet_lite0", "\n    ".join(lines))


def check_that_the_loss_is(wanted: str, earlier: Path) -> None:
    """Compare the loss of an option file's text with that of the file of a run to be continued.

    Raises:
        ValueError: if the run was trained with another one, or its option file cannot be read.
    """
    new, old = yaml.safe_load(wanted)["train"]["perceptual_opt"], _loss_in(earlier)
    if new != old:
        raise ValueError(
            f"A run that is continued must keep its loss, but that in '{earlier.parent}' has {old}, and what is asked "
            f"for is {new}. Use --fresh, which keeps the earlier run under another name, or its own --weights."
        )


def _loss_in(file: Path) -> dict[str, Any]:
    try:
        block: dict[str, Any] = yaml.safe_load(read_text(file))["train"]["perceptual_opt"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ValueError(
            f"A run that is continued must have its option file, but '{file}' is missing or damaged. Use "
            "--fresh, which keeps the earlier run under another name."
        ) from error
    return block


def _substituted(text: str, pattern: str, replacement: str) -> str:
    changed, count = re.subn(pattern, lambda _: replacement, text)
    if count != 1:
        raise ValueError(f"'{TEMPLATE}' must hold '{pattern}' once, but holds it {count} times.")
    return changed


def _quoted(value: str) -> str:
    is_plain = re.fullmatch(r"[a-z]\w+", value) and yaml.safe_load(value) == value
    return value if is_plain else json.dumps(value, ensure_ascii=False)
