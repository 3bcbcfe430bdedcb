"""Mistakes in an option file, met through BasicSR's own pipeline."""

from pathlib import Path
from typing import Any

import pytest

from hosts.options import PERCEPTUAL, train_options
from hosts.runs import train


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"loss_wieght": 0.1}, TypeError, "`loss_wieght`.*Did you mean 'loss_weight'?"),
        ({"loss_weight": "1e-4"}, TypeError, "`loss_weight`.*!!float 1e-4"),
        ({"push_weight": "1e-4"}, TypeError, "`push_weight`.*!!float 1e-4"),
        ({"margin": "1e-4"}, (TypeError, ValueError), "`margin`.*!!float 1e-4"),
        ({"layer_weights": {"relu1_2": "1e-1"}}, TypeError, "relu1_2.*!!float 1e-1"),
        ({"perceptual_weight": 1.0}, TypeError, "`perceptual_weight`.*`loss_weight`"),
        ({"criterion": "tripplet"}, ValueError, "`criterion`.*Did you mean 'triplet'?"),
        ({"layer_weights": {"relu1_3": 1.0}}, ValueError, "'relu1_3'"),
    ],
)
def test_what_the_person_reads(
    changed: dict[str, Any], error: type[Exception], message: str, pairs: Path, tmp_path: Path
) -> None:
    options = train_options(pairs, perceptual={**PERCEPTUAL, **changed})
    with pytest.raises(error, match=message):
        train(tmp_path, options)
