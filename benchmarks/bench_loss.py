"""Time and memory of CLPLoss beside the losses that people have: `clp-basicsr bench`, from a checkout.

python benchmarks/bench_loss.py --batch 2 --size 128
"""

from __future__ import annotations

import sys

from clp_basicsr.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
