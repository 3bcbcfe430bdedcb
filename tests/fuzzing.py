"""What every fuzzed case has to keep: a finite scalar, or an error that a person can act on."""

from __future__ import annotations

import re
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

import clp_basicsr

Result = TypeVar("Result")

PACKAGE = Path(clp_basicsr.__file__).parent
DOCUMENTED = (TypeError, ValueError, FileNotFoundError)
"""Kinds of errors, exactly these: what inherits from them is somebody else's."""
GRAMMAR = re.compile(
    r"\bmust\b.*\bbut\b|has no keyword .* must be one of|\bneeds\b.*\bbut\b|could not be had", re.DOTALL
)
LONGEST = 2000

cases: Counter[str] = Counter()
"""How many cases ran, by what came out; `conftest.py` prints it."""


def examples(count: int) -> settings:
    """Return settings that run the same ``count`` cases every time, however slow the machine."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def attempt(call: Callable[[], Result]) -> Result | Exception:
    """Count a case and return what ``call`` returns, or its error; fail if that is not a documented one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)  # NumPy's way to say that it made NaN or inf
            result = call()
    except Exception as error:
        cases["refused"] += 1
        check_documented(error)
        return error
    cases["accepted"] += 1
    return result


def check_documented(error: Exception) -> None:
    """Fail unless ``error`` was raised by this package, is of a documented kind and says what must be and what is."""
    said = f"{type(error).__name__}: {str(error)[:LONGEST]}"
    file = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    assert PACKAGE in file.parents, f"not raised by clp_basicsr but in {file}: {said}"
    assert type(error) in DOCUMENTED, f"not a documented kind: {said}"
    assert GRAMMAR.search(str(error)), f"does not say what must be and what is: {said}"
    assert len(str(error)) <= LONGEST, f"{len(str(error))} characters: {said}"


def check_finite(value: object, sr: Tensor) -> None:
    """Fail unless ``value`` is a finite scalar with a finite gradient at ``sr``."""
    assert isinstance(value, Tensor)
    assert value.shape == ()
    assert value.dtype in (torch.float32, torch.float64)
    assert value.isfinite(), value
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, sr)
        assert gradient.shape == sr.shape
        assert gradient.isfinite().all()
