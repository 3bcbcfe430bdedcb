"""``clp-basicsr demo``: its flags."""

from __future__ import annotations

import argparse

from clp_basicsr.demo.options import ITERATIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--model", default="efficientnet_lite0", help="the loss's network (default: %(default)s)")
    parser.add_argument("--weights", help="its weights: a file, a checkpoint folder, or 'random'")
    parser.add_argument(
        "--iterations", type=positive, default=ITERATIONS, help="length of the training (default: %(default)s)"
    )
    parser.add_argument("--fresh", action="store_true", help="start anew instead of continuing an earlier run")


def run(options: argparse.Namespace) -> None:
    """Run the demo; errors are those of `clp_basicsr.demo.run.run`."""
    from clp_basicsr.demo import run as demo  # it needs BasicSR, which other commands do without

    demo.run(options.model, options.weights, options.iterations, fresh=options.fresh)


def positive(text: str) -> int:
    """Read a flag's whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, but got {text}")
    return value
