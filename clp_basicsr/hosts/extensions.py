"""``--import PACKAGE``: archs, data sets, models and losses of other packages, registered before BasicSR starts."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Sequence

from clp_basicsr.messages import reason


def split_imports(arguments: Sequence[str], command: str) -> tuple[list[str], list[str]]:
    """Return the names that ``--import`` gives, in order, and the other arguments as they are.

    Args:
        arguments: a command line without the program's name.
        command: "train" or "test", for the message.

    Raises:
        SystemExit: with a message, if a name is missing or is none that Python's ``import`` takes.
    """
    usage = f"clp-basicsr {command} [--import PACKAGE] -opt FILE [BasicSR's own flags]"
    parser = argparse.ArgumentParser(prog="clp-basicsr", usage=usage, add_help=False, allow_abbrev=False)
    parser.add_argument("--import", dest="names", type=_module_name, action="append", default=[], metavar="PACKAGE")
    options, rest = parser.parse_known_args(list(arguments))
    return options.names, rest


def import_extensions(names: Iterable[str]) -> None:
    """Import packages by name; those in the working directory are found, as with ``python -m``.

    Raises:
        ImportError: if one is not there or does not import.
    """
    for name in names:
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.insert(0, os.getcwd())  # for good: processes that load data later may import from it
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(_what_is_wrong(name, error)) from error


def _what_is_wrong(name: str, error: ImportError) -> str:
    if error.name and f"{name}.".startswith(f"{error.name}."):
        return (
            "Flag `--import` must name a package that is installed, or a package or .py file in the working directory, "
            f"but there is no '{error.name}' (from '{os.getcwd()}'). To install it for this Python: "
            f"{sys.executable} -m pip install {error.name}, where it has that name there too."
        )
    return f"Flag `--import` must name a package that can be imported, but importing '{name}' failed: {reason(error)}"


def _module_name(text: str) -> str:
    if all(part.isidentifier() for part in text.split(".")) and not text.endswith(".py"):
        return text
    parts = os.path.normpath(text.removesuffix(".py")).split(os.sep)
    if all(part.isidentifier() for part in parts):
        cure = f"Try '{'.'.join(parts)}'."
    else:
        cure = f"It is looked for in the working directory, '{os.getcwd()}': go to where it is, then '{parts[-1]}'."
    raise argparse.ArgumentTypeError(f"must be a name as after Python's `import`, but got '{text}'. {cure}")
