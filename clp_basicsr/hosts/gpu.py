"""Saying who needs an NVIDIA GPU where there is none: torch's own error speaks of drivers."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from types import FrameType

import torch


class NoGPUError(RuntimeError):
    """Code calls CUDA by name, on a machine where torch finds no GPU."""


@contextmanager
def named_if_it_needs_a_gpu() -> Iterator[None]:
    """Turn an error of `torch.cuda` on a machine without a GPU into one that names who called it.

    Raises:
        NoGPUError: in place of torch's error.
    """
    try:
        yield
    except Exception as error:
        frames = list(traceback.walk_tb(error.__traceback__))
        inside_torch = list(takewhile(lambda each: _module(each[0]).split(".")[0] == "torch", reversed(frames)))
        if torch.cuda.is_available() or not any(_module(each[0]).startswith("torch.cuda") for each in inside_torch):
            raise
        raise NoGPUError(_who_needs_it(*frames[-len(inside_torch) - 1])) from error


def _who_needs_it(caller: FrameType, line: int) -> str:
    who = type(caller.f_locals["self"]).__name__ if "self" in caller.f_locals else caller.f_code.co_name
    file = caller.f_code.co_filename
    code = linecache.getline(file, line).split("  #")[0].strip()
    return (
        f"{who} needs an NVIDIA GPU, but torch finds none: it calls CUDA itself (`{code}`, {Path(file).name}, line "
        f"{line}). Run it on a machine with one. Without: a `model_type` other than RealESRGANModel and "
        "RealESRNetModel, `num_gpu: auto`, and no `prefetch_mode: cuda`."
    )


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
