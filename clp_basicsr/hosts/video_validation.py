"""Validation of BasicSR's video models without a GPU, which BasicSR 1.4.2 takes for granted in two places."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Validation = Callable[..., None]


def on_the_cpu(dist_validation: Validation) -> Validation:
    """Return ``dist_validation`` of a video model with the metrics and the batch where it can use them.

    It makes the metrics' place, one row a frame for each folder of the data set, on the GPU by name, but only where
    there is none yet. And VideoRecurrentModel takes the first axis from a batch that it has fed, in place,
    as if `to` had made a copy.
    """

    @functools.wraps(dist_validation)
    def validate(self: Any, dataloader: Any, *arguments: Any, **keywords: Any) -> None:
        metrics = self.opt["val"].get("metrics")
        if metrics is not None and not hasattr(self, "metric_results"):
            frames = Counter(dataloader.dataset.data_info["folder"])
            self.metric_results = {folder: torch.zeros(number, len(metrics)) for folder, number in frames.items()}
        self.feed_data = _fed_with_copies(self.feed_data)
        try:
            dist_validation(self, dataloader, *arguments, **keywords)
        finally:
            vars(self).pop("feed_data", None)

    return validate


def _fed_with_copies(feed_data: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def feed(data: dict[str, Any]) -> None:
        feed_data({name: value.clone() if isinstance(value, Tensor) else value for name, value in data.items()})

    return feed
