"""The package pyiqa, where it is installed: its metrics, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from clp_basicsr.messages import needs_package, not_a_choice, reason


def build(metric: str, device: torch.device, **options: Any) -> Any:
    """Return a metric as pyiqa builds it.

    Args:
        metric: a name out of ``pyiqa.list_models()``.
        device: where its network runs.
        **options: go on to ``pyiqa.create_metric``.

    Raises:
        ValueError: for a metric or an option that pyiqa does not know.
        ImportError: if pyiqa is not installed.
        FileNotFoundError: if the metric's weights cannot be had.
    """
    _settings(metric)
    import pyiqa

    try:
        return pyiqa.create_metric(metric, device=device, **options)
    except TypeError as error:
        raise ValueError(f"pyiqa's '{metric}' must get options that it knows, but got {options}: {error}") from error
    except Exception as error:  # urllib's, requests', httpx's and Hugging Face's errors have no common base
        hub = Path(torch.hub.get_dir())
        raise FileNotFoundError(
            f"pyiqa's '{metric}' could not be built: {type(error).__name__}: {reason(error)}. If that was a download: "
            f"use the metric once on a machine with a network and copy what it put into '{hub / 'pyiqa'}', "
            f"'{hub / 'checkpoints'}' and Hugging Face's cache to the same places here."
        ) from error


def lower_is_better(metric: str) -> bool:
    """Say which way a metric of pyiqa points, without building it.

    Raises:
        ValueError: if pyiqa does not know it.
        ImportError: if pyiqa is not installed.
    """
    return bool(_settings(metric).get("lower_better", False))


def compares_with_gt(metric: str) -> bool:
    """Say whether a metric of pyiqa takes GT, without building it; errors as of `lower_is_better`."""
    return bool(_settings(metric).get("metric_mode") != "NR")


def _settings(metric: str) -> Mapping[str, Any]:
    try:
        from pyiqa.default_model_configs import DEFAULT_CONFIGS
    except ImportError as error:
        cure = "Install it with: pip install pyiqa"
        raise ImportError(needs_package(f"The metric {metric!r}", "pyiqa", cure, error)) from error
    if metric not in DEFAULT_CONFIGS:
        raise ValueError(not_a_choice("metric", metric, sorted(DEFAULT_CONFIGS)))
    settings: Mapping[str, Any] = DEFAULT_CONFIGS[metric]
    return settings
