"""BasicSR's flags, read as BasicSR reads them: abbreviated, behind an equals sign, the last one counts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

_MORE = """
  --import PACKAGE      before anything else, import a package or .py file that registers archs, data sets, models
                        or losses with BasicSR (realesrgan, or your own); as often as needed

Under torchrun `--launcher pytorch` is added.
"""
_RESUMING = """
With --auto_resume the same command goes on from the newest whole checkpoint in experiments/<name>. Without it, and
where there is no checkpoint yet, the training begins anew, and the earlier folder is kept as <name>_archived_<time>.
"""


def read_flags(arguments: Sequence[str], command: str = "train") -> argparse.Namespace:
    """Return the values of BasicSR's flags; ``launcher`` and ``opt`` are None where they are not given.

    Args:
        arguments: a command line without the program's name and ``--import``.
        command: ``train`` or ``test``, for ``--help``.

    Raises:
        SystemExit: after ``--help``, or with a message for a flag's value that BasicSR would not take.
    """
    parser = argparse.ArgumentParser(
        prog=f"clp-basicsr {command}",
        usage=f"clp-basicsr {command} [--import PACKAGE] -opt FILE [flags]",
        epilog=_MORE + (_RESUMING if command == "train" else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-opt", metavar="FILE", help="the option file, YAML")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], help="who started several processes")
    parser.add_argument("--auto_resume", action="store_true", help="a training: go on from its newest whole checkpoint")
    parser.add_argument("--debug", action="store_true", help="log, save and validate every few iterations")
    parser.add_argument("--local_rank", type=int, default=0, help="set by launchers")
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="KEY:KEY=VALUE", help="options instead of the file's"
    )
    return parser.parse_known_args(list(arguments))[0]
