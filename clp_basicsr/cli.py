"""``clp-basicsr train | test | demo | inspect | plot | bench``."""

from __future__ import annotations

import argparse
import errno
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper

from clp_basicsr import __version__
from clp_basicsr import inspect_command as inspect
from clp_basicsr.bench import command as bench
from clp_basicsr.demo import command as demo
from clp_basicsr.disk import NotSavedError, named_if_the_disk_is_full
from clp_basicsr.hosts.checkpoints import DamagedCheckpointError, UntrustedCheckpointError
from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.hosts.without_gpu import NoGPUError
from clp_basicsr.pictures import plot

_MENDABLE = (
    ImportError,
    FileNotFoundError,
    NoGPUError,
    DamagedCheckpointError,
    UntrustedCheckpointError,
    OptionFileError,
)
_NOT_ALLOWED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
_BASICSRS_FLAGS = ("train", "test")
_COMMANDS = {"demo": demo.run, "inspect": inspect.run, "plot": plot.run, "bench": bench.run}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; what a person can mend is one line, no traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a file name that the terminal cannot show must not end a command
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in _BASICSRS_FLAGS:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        with named_if_the_disk_is_full():
            _run(options, rest)
    except NotSavedError as error:
        return _failed(options.command, f"{error} {_how_to_continue(options.command)}")
    except _MENDABLE as error:
        return _failed(options.command, str(error))
    except OSError as error:
        if error.errno not in _NOT_ALLOWED or error.filename is None:
            raise
        return _failed(options.command, f"'{error.filename}' cannot be read or written: {error.strerror}.")
    except (TypeError, ValueError) as error:
        if options.command in _BASICSRS_FLAGS and not _is_about_keywords(error):
            raise
        return _failed(options.command, str(error))
    except KeyboardInterrupt:
        print(f"\nclp-basicsr {options.command}: stopped. {_how_to_continue(options.command)}", file=sys.stderr)
        return 130
    return 0


def _is_about_keywords(error: BaseException) -> bool:
    """Say whether it is this package's own word on a loss that BasicSR builds: then it says what to do."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    of_a_loss = any(frame.f_code.co_name == "build_loss" for frame in frames)
    return of_a_loss and str(frames[-1].f_globals.get("__name__")).startswith("clp_basicsr.")


def _failed(command: str, text: str) -> int:
    print(f"clp-basicsr {command}: {text}".rstrip(), file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clp-basicsr", description="Contrastive perceptual loss for BasicSR.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("train", "train with BasicSR"), ("test", "test with BasicSR")):
        commands.add_parser(name, help=f"{text}: -opt FILE [--auto_resume …] [--import PACKAGE]", add_help=False)
    training = commands.add_parser("demo", help="train a small x4 network on scikit-image's photos, in a few minutes")
    demo.add_arguments(training)
    looking = commands.add_parser("inspect", help="draw what the loss sees of one image: maps, gradient, layers")
    inspect.add_arguments(looking)
    costs = commands.add_parser("bench", help="measure time and memory of the loss beside others")
    bench.add_arguments(costs)
    plotting = commands.add_parser("plot", help="draw the training curves of one or several runs")
    plot.add_arguments(plotting)
    return parser


def _run(options: argparse.Namespace, rest: list[str]) -> None:
    if options.command in _COMMANDS:
        _COMMANDS[options.command](options)
        return
    from clp_basicsr.hosts import basicsr_launch

    {"train": basicsr_launch.train, "test": basicsr_launch.test}[options.command](rest)


def _how_to_continue(command: str) -> str:
    return {
        "train": "To continue from the last checkpoint, where there is one: the same command with --auto_resume.",
        "demo": "The same command continues.",
    }.get(command, "")


if __name__ == "__main__":
    sys.exit(main())
