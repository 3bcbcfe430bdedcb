"""Mistakes in an option file for which BasicSR has no words: a bare KeyError, or a traceback out of PyYAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clp_basicsr.hosts.options.encoding import read_text
from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.messages import reason, shown

# What BasicSR reads without asking whether it is there: utils/options.py, models/__init__.py, train.py, test.py.
_NEEDED = ("name", "model_type", "num_gpu", "datasets", "path")
_NEEDED_TO_TRAIN = ("train", "logger")
_NEEDED_TO_TEST = ("val",)
# basicsr/models/video_base_model.py and video_recurrent_model.py; SRModel asks whether there are any.
_NEED_METRICS = ("VideoBaseModel", "EDVRModel", "VideoGANModel", "VideoRecurrentModel", "VideoRecurrentGANModel")
_BLOCKS = ("datasets", "path", "train", "logger", "val")


def read_option_file(path: Path) -> dict[str, Any]:
    """Return the options in an existing file.

    Raises:
        OptionFileError: if it is no YAML, or has names that are no text.
    """
    options = _read(path)
    _check_names(path, "", options)
    return options


def check_sections(path: Path, options: Mapping[str, Any], *, training: bool) -> None:
    """Check that there is what BasicSR reads without asking.

    Args:
        path: where the options come from.
        options: all of them.
        training: whether they are for a training, which takes more sections than a test.

    Raises:
        OptionFileError: if a section is missing, or is no block.
    """
    needed = (*_NEEDED, *(_NEEDED_TO_TRAIN if training else _NEEDED_TO_TEST))
    missing = [name for name in needed if options.get(name) is None]
    if missing:
        raise OptionFileError(
            f"Option file '{path}' must have {', '.join(f'`{name}`' for name in needed)} at its top, but has no "
            f"{', '.join(f'`{name}`' for name in missing)}. Complete files: options/train."
        )
    for name in needed:
        if name in _BLOCKS:
            check_block(path, name, options[name])
    if training and "train" not in options["datasets"]:
        raise OptionFileError(
            f"Option `datasets` in '{path}' must have a block `train`, but has only {shown([*options['datasets']])}."
        )
    validation = options.get("val")
    validates = any(str(phase).startswith(("val", "test")) for phase in options["datasets"])
    needs_metrics = validates and options["model_type"] in _NEED_METRICS
    if needs_metrics and isinstance(validation, Mapping) and "metrics" not in validation:
        raise OptionFileError(
            f"Option `val` in '{path}' must have `metrics` with `model_type: {options['model_type']}`, but has only "
            f"{shown([*validation])}. For none write `metrics: ~`."
        )


def _read(path: Path) -> dict[str, Any]:
    import yaml  # here, or `import clp_basicsr` would pay for it
    from basicsr.utils.options import ordered_yaml

    try:
        text = read_text(path)
        loader = ordered_yaml()[0]
        options, root = yaml.load(text, Loader=loader), yaml.compose(text, Loader=loader)
    except Exception as error:  # PyYAML lets through what it meets: bytes, dates, tags, keys that no mapping takes
        where = getattr(error, "problem_mark", None)
        line = "" if where is None else f" in line {where.line + 1}"
        why = getattr(error, "problem", None) or reason(error)
        raise OptionFileError(f"Option file '{path}' must be YAML, but it cannot be read{line}: {why}.") from error
    if not isinstance(options, dict):
        raise OptionFileError(f"Option file '{path}' must hold a mapping (name: …), but got {shown(options)}.")
    _check_that_names_stand_once(path, root)
    return options


def _check_that_names_stand_once(path: Path, node: Any) -> None:
    """Refuse a name that stands twice in a block, of which YAML takes the last without a word."""
    if isinstance(node.value, str):
        return
    pairs = node.value if node.id == "mapping" else []
    lines: dict[object, int] = {}
    for name, _ in pairs:
        line = name.start_mark.line + 1
        if name.value in lines and name.value != "<<":
            raise OptionFileError(
                f"Option `{name.value}` in '{path}' must stand once in its block, but stands in lines "
                f"{lines[name.value]} and {line}. Remove one."
            )
        lines[name.value] = line
    for inner in [value for _, value in pairs] if pairs else node.value:
        _check_that_names_stand_once(path, inner)


def check_block(path: Path, where: str, given: object) -> Mapping[str, Any]:
    """Return what must be a block of options.

    Raises:
        OptionFileError: if it is none.
    """
    if not isinstance(given, Mapping):
        raise OptionFileError(
            f"Option `{where}` in '{path}' must be a block of options, but got {shown(given)}. "
            "Indent what belongs to it."
        )
    return given


def _check_names(path: Path, where: str, block: Mapping[Any, Any]) -> None:
    """Refuse names that are no text, everywhere: BasicSR prints all of them, joined to text."""
    for name, value in block.items():
        if not isinstance(name, str):
            place = f" under `{where}`" if where else ""
            raise OptionFileError(f"Names of options in '{path}' must be text, but got {shown(name)}{place}.")
        if isinstance(value, Mapping):
            _check_names(path, f"{where}: {name}".removeprefix(": "), value)
