"""Everything that is said about a BasicSR option file before BasicSR starts, in one place."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clp_basicsr.hosts.options.crop import check_crop
from clp_basicsr.hosts.options.file import check_sections
from clp_basicsr.hosts.options.losses import check_losses
from clp_basicsr.hosts.options.numbers import check_numbers
from clp_basicsr.hosts.options.paths import check_data, check_pretrained
from clp_basicsr.hosts.options.types import check_types


def check_options(path: Path, options: Mapping[str, Any], flags: Namespace, *, training: bool) -> None:
    """Check options with which BasicSR is certain to fail, and to say it badly or late.

    Args:
        path: where the options come from.
        options: all of them.
        flags: BasicSR's, as `clp_basicsr.hosts.options.flags` reads them.
        training: whether they are for a training.

    Raises:
        OptionFileError: for the first mistake.
    """
    check_losses(path, options)
    check_sections(path, options, training=training)
    check_types(path, options, training=training)
    check_numbers(path, options, training=training)
    check_data(path, options)
    # A run that resumes takes its networks from its checkpoint; the ones it began with may be gone.
    if not flags.auto_resume and not options["path"].get("resume_state"):
        check_pretrained(path, options, training=training)
    if training:
        check_crop(path, options)
