"""What BasicSR 1.4.2 asks of other packages that their current versions have no more."""

from __future__ import annotations

import importlib
from contextlib import suppress
from types import ModuleType
from typing import Any

from clp_basicsr.hosts.import_hook import provide_if_missing, when_imported


def provide() -> None:
    """See to it that BasicSR finds them; again changes nothing."""
    provide_if_missing("torchvision.transforms.functional_tensor", _fill_functional_tensor)
    when_imported("wandb.util", _give_generate_id)


def _fill_functional_tensor(module: ModuleType) -> None:
    """Give basicsr/data/degradations.py the one function it imports from a module torchvision dropped."""
    from torchvision.transforms.functional import rgb_to_grayscale

    def of_its_successor(name: str) -> Any:
        # For others who look for the old module first, and would take this one for it.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module("torchvision.transforms._functional_tensor"), name)

    module.rgb_to_grayscale = rgb_to_grayscale  # type: ignore[attr-defined]
    module.__getattr__ = of_its_successor  # type: ignore[method-assign]


def _give_generate_id(util: ModuleType) -> None:
    """Give basicsr/utils/logger.py the function that it names a new run of wandb with."""
    if not hasattr(util, "generate_id"):
        with suppress(ImportError, AttributeError):  # of a wandb to come, which BasicSR cannot use either
            util.generate_id = importlib.import_module("wandb.sdk.lib.runid").generate_id  # type: ignore[attr-defined]
