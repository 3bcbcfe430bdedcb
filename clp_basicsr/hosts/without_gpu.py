"""BasicSR on a machine without a GPU: what it takes one for granted in, and who needs one where there is none."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clp_basicsr.hosts.video_validation import on_the_cpu


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


def substitutes() -> list[tuple[Any, str, Any]]:
    """Return what stands for what in BasicSR on such a machine: owner, name, substitute."""
    from basicsr.models.base_model import BaseModel
    from basicsr.models.video_base_model import VideoBaseModel
    from basicsr.models.video_recurrent_model import VideoRecurrentModel
    from basicsr.utils import dist_util

    return [
        (dist_util, "_init_dist_pytorch", _init_gloo),
        (dist_util, "_init_dist_slurm", _refuse_slurm),
        (BaseModel, "model_to_device", _model_to_cpu),
        *(
            (model, "dist_validation", on_the_cpu(model.dist_validation))
            for model in (VideoBaseModel, VideoRecurrentModel)
        ),
    ]


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


def _init_gloo(backend: str, **options: Any) -> None:
    """As ``_init_dist_pytorch`` in basicsr/utils/dist_util.py, for a machine without a GPU."""
    torch.distributed.init_process_group(backend="gloo", **options)


def _refuse_slurm(backend: str, **options: Any) -> None:
    """In the place of ``_init_dist_slurm``, which divides by the number of GPUs."""
    raise RuntimeError(
        "Flag `--launcher` must be 'pytorch' where there is no GPU, but got 'slurm'. Start the processes with "
        "torchrun: torchrun --nproc_per_node=2 -m clp_basicsr.train -opt FILE --launcher pytorch"
    )


def _model_to_cpu(self: Any, net: nn.Module) -> nn.Module:
    """As ``BaseModel.model_to_device``, for a machine without a GPU."""
    if self.device.type == "cuda":
        raise NoGPUError(
            "`num_gpu` asks for an NVIDIA GPU, but torch finds none. Write `num_gpu: auto`: GPUs where there are any."
        )
    net = net.to(self.device)
    if self.opt["dist"]:
        unused = self.opt.get("find_unused_parameters", False)
        net = DistributedDataParallel(net, find_unused_parameters=unused)
    return net
