"""``type`` and ``model_type``: names that no registry of BasicSR has, of which it says no more than a KeyError."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clp_basicsr.hosts.options.errors import OptionFileError
from clp_basicsr.messages import did_you_mean, shown

_ITS_PACKAGES = ("basicsr", "realesrgan", "clp_basicsr")
_SUFFIX = "_basicsr"


def check_types(path: Path, options: Mapping[str, Any], *, training: bool) -> None:
    """Check the names of the model, its networks and the data sets; one that is not given is not looked at.

    Args:
        path: where the options come from.
        options: all of them, with the sections that BasicSR needs.
        training: whether they are for a training.

    Raises:
        OptionFileError: for a name that nobody has registered.
    """
    check_registered(path, "model_type", options["model_type"], "MODEL")
    for phase, block in options["datasets"].items():
        if isinstance(block, Mapping) and "type" in block:
            check_registered(path, f"datasets: {phase}: type", block["type"], "DATASET")
    for network in networks_it_builds(options, training=training):
        block = options.get(network)
        if isinstance(block, Mapping) and "type" in block:
            check_registered(path, f"{network}: type", block["type"], "ARCH")


def networks_it_builds(options: Mapping[str, Any], *, training: bool) -> tuple[str, ...]:
    """Return the blocks of the networks that a model of BasicSR builds; none for a model of somebody else."""
    name = options["model_type"]
    if not is_basicsrs(registered("MODEL", name)):
        return ()
    return ("network_g", "network_d") if training and "GAN" in name else ("network_g",)


def registered(registry: str, name: object) -> Any:
    """Return what BasicSR builds for a name, or None.

    Args:
        registry: ``"MODEL"``, ``"DATASET"``, ``"ARCH"`` or ``"LOSS"``.
        name: as in an option file.
    """
    known = dict(iter(_registry(registry)))
    return known.get(name, known.get(f"{name}{_SUFFIX}")) if isinstance(name, str) else None


def is_registered(name: object, names: Iterable[str]) -> bool:
    """Say whether BasicSR's registry of ``names`` has it; those of its own copies have a suffix there."""
    return isinstance(name, str) and bool({name, f"{name}{_SUFFIX}"} & set(names))


def plain_name(given: object) -> str:
    """Return a ``type`` without that suffix."""
    return str(given).removesuffix(_SUFFIX)


def is_basicsrs(something: Any) -> bool:
    """Say whether a class is BasicSR's, so that it is known what it does with its options."""
    return str(getattr(something, "__module__", "")).split(".")[0] in _ITS_PACKAGES


def check_registered(path: Path, where: str, given: object, registry: str) -> None:
    """Check a name that BasicSR looks up.

    Args:
        path: where it comes from.
        where: which option it is.
        given: the name.
        registry: ``"MODEL"``, ``"DATASET"``, ``"ARCH"`` or ``"LOSS"``.

    Raises:
        OptionFileError: if nobody has registered it.
    """
    known = [*_registry(registry).keys()]
    if is_registered(given, known):
        return
    names = sorted({plain_name(name) for name in known})
    raise OptionFileError(
        f"Option `{where}` in '{path}' must be one of {names}, but got {shown(given)}.{did_you_mean(given, names)} "
        "What another package registers needs --import PACKAGE."
    )


def _registry(name: str) -> Any:
    return getattr(importlib.import_module("basicsr.utils.registry"), f"{name}_REGISTRY")
