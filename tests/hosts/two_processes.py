"""One step of BasicSR's SRModel in each process of a gloo group, on its share of a batch, in float64.

``torchrun --nproc_per_node=2 two_processes.py FOLDER`` writes ``rank0.pt`` and ``rank1.pt`` there.
"""

import gc
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import clp_basicsr  # noqa: F401  # without it BasicSR 1.4.2 cannot be imported
from hosts.options import PERCEPTUAL, SCALE, train_options

MARGINS: tuple[str | float, ...] = ("relative", 1.0)
COLLECTIVES = ("reduce", "all_reduce", "all_gather", "all_gather_object", "gather", "broadcast", "barrier")


def joint_batch() -> dict[str, Tensor]:
    """Four pairs; process r takes pairs r and r + 2."""
    gt = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return {"gt": gt, "lq": F.avg_pool2d(gt, SCALE)}


def share(batch: dict[str, Tensor], rank: int, processes: int = 2) -> dict[str, Tensor]:
    return {name: images[rank::processes] for name, images in batch.items()}


def build(margin: str | float, rank: int = 0, processes: int = 1) -> Any:
    """Return an SRModel in float64, the same in every process, wrapped in DDP where there are several."""
    from basicsr.models import build_model

    torch.manual_seed(0)
    options = train_options(Path(), perceptual={**PERCEPTUAL, "margin": margin, "loss_weight": 1.0})
    options |= {"is_train": True, "dist": False, "rank": rank, "world_size": processes}
    model = build_model(options)
    model.net_g.double()
    model.cri_perceptual.double()
    if processes > 1:
        model.net_g = DistributedDataParallel(model.net_g)
        model.opt["dist"] = True
    return model


def step(model: Any, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Train one iteration; return the gradients and what was logged."""
    model.feed_data(batch)
    model.optimize_parameters(1)
    network = model.get_bare_model(model.net_g)
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    return {"gradients": gradients, "log": dict(model.get_current_log()), "output": model.output.detach()}


def _counted(counts: dict[str, int]) -> None:
    """Count this process's calls of torch's collectives."""

    def wrapped(name: str) -> Any:
        original = getattr(torch.distributed, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return original(*arguments, **keywords)

        return call

    for name in COLLECTIVES:
        setattr(torch.distributed, name, wrapped(name))


def _main(folder: Path) -> None:
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo")
    results = {}
    models = {margin: build(margin, rank, processes) for margin in MARGINS}
    counts: dict[str, int] = {}
    _counted(counts)
    for margin in MARGINS:
        counts.clear()
        results[margin] = {**step(models[margin], share(joint_batch(), rank, processes)), "collectives": dict(counts)}
    torch.save(results, folder / f"rank{rank}.pt")
    # A DDP wrapper that outlives the group keeps gloo's threads until the interpreter's end, which may abort.
    torch.distributed.barrier()
    models.clear()
    gc.collect()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
