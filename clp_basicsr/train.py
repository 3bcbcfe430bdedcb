"""``python -m clp_basicsr.train [--import PACKAGE] -opt FILE [BasicSR's own flags]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with BasicSR; see `clp_basicsr.hosts.basicsr_launch.train`."""
    from clp_basicsr.hosts import basicsr_launch

    basicsr_launch.train(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
