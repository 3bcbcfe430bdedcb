"""The training entry of the `realesrgan` package on the CPU, with a record of what the loss saw in it.

``python -m hosts.realesrgan_entry FOLDER ARGUMENTS`` runs ``realesrgan/train.py ARGUMENTS`` and writes ``calls.pt``.
"""

import runpy
import sys
from pathlib import Path

import torch

import clp_basicsr  # noqa: F401  # without it BasicSR 1.4.2 cannot be imported
from hosts.realesrgan import stand_in_for_the_gpu
from hosts.records import watch

if __name__ == "__main__":
    folder, sys.argv = Path(sys.argv[1]), ["train.py", *sys.argv[2:]]
    stand_in_for_the_gpu(setattr)
    seen = watch(setattr)
    runpy.run_module("realesrgan.train", run_name="__main__")
    torch.save([vars(call) for call in seen.calls], folder / "calls.pt")
