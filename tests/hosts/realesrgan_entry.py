"""The training entry of the `realesrgan` package on the CPU, with a record of what the loss saw in it.

``python -m hosts.realesrgan_entry FOLDER ARGUMENTS`` runs ``realesrgan/train.py ARGUMENTS`` and writes ``calls.pt``.
"""

import runpy
import sys
from functools import partialmethod
from pathlib import Path

import torch

import clp_basicsr  # isort: skip  # noqa: F401  # must come first: without it BasicSR 1.4.2 cannot be imported
from basicsr.utils import USMSharp

from hosts.realesrgan import stand_in_for_the_gpu
from hosts.records import watch

if __name__ == "__main__":
    folder, sys.argv = Path(sys.argv[1]), ["train.py", *sys.argv[2:]]
    stand_in_for_the_gpu(setattr)
    # Its blur of 50 pixels takes seconds a step on a CPU: the data set cuts 400 x 400.
    setattr(USMSharp, "__init__", partialmethod(USMSharp.__init__, radius=10))  # noqa: B010
    seen = watch(setattr)
    runpy.run_module("realesrgan.train", run_name="__main__")
    torch.save([vars(call) for call in seen.calls], folder / "calls.pt")
