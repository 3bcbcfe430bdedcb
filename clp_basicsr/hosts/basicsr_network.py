"""A network that BasicSR trained: built from the option file, its weights from the checkpoint."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clp_basicsr.hosts.basicsr import register
from clp_basicsr.hosts.extensions import import_extensions
from clp_basicsr.messages import reason

_KEYS = ("params_ema", "params")


def load_network(options: Mapping[str, Any], checkpoint: Path, extensions: Iterable[str] = ()) -> nn.Module:
    """Return the network of an option file with the weights of a checkpoint, in eval mode.

    Args:
        options: a BasicSR option file with ``network_g``.
        checkpoint: ``net_g_*.pth``; of EMA weights and plain ones, the EMA's are taken, as validation does.
        extensions: packages that register archs of their own.

    Raises:
        ImportError: if BasicSR or an extension is not installed.
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if there is no ``network_g``, no such arch, or the checkpoint is of another network.
    """
    if not isinstance(options.get("network_g"), Mapping):
        raise ValueError("Flag `-opt` must name an option file with a `network_g` where `--checkpoint` is given.")
    if not checkpoint.is_file():
        raise FileNotFoundError(f"Flag `--checkpoint` must name a file, but there is none at '{checkpoint}'.")
    register()
    import_extensions(extensions)
    from basicsr.archs import build_network

    try:
        network: nn.Module = build_network(dict(options["network_g"]))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"`network_g` must be one of BasicSR's networks with its own options, but building "
            f"{dict(options['network_g'])} failed: {reason(error)} For another package's: --import PACKAGE."
        ) from error
    network.load_state_dict(_weights(checkpoint, network))
    return network.eval()


def _weights(checkpoint: Path, network: nn.Module) -> dict[str, Tensor]:
    try:
        saved: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights = next((saved[key] for key in _KEYS if key in saved), saved)
        weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    except (RuntimeError, EOFError, pickle.UnpicklingError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Flag `--checkpoint` must name a file that BasicSR saved, but '{checkpoint}' is none: {reason(error)}"
        ) from error
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    wrong = [name for name in {*shapes, *weights} if getattr(weights.get(name), "shape", None) != shapes.get(name)]
    if wrong:
        raise ValueError(
            f"Flag `--checkpoint` must name weights of `network_g`, but in '{checkpoint}' {len(wrong)} tensors are "
            f"missing, too many or of another shape; the first: {min(wrong)}."
        )
    return weights


def luma(image: Tensor) -> Tensor:
    """Return Y ``(N, 1, H, W)`` of RGB ``(N, 3, H, W)`` in [0, 1]: what BasicSR's ``color: y`` trains with."""
    register()
    from basicsr.utils.color_util import rgb2ycbcr_pt

    y: Tensor = rgb2ycbcr_pt(image, y_only=True)
    return y


@torch.no_grad()
def super_resolve(network: nn.Module, lr: Tensor, window: int = 1) -> Tensor:
    """Return what a network makes of images ``(N, 3, h, w)``.

    Args:
        network: in eval mode.
        lr: its input.
        window: pad to a multiple of this, by reflection, and cut the output, as BasicSR's SwinIRModel does.
    """
    height, width = lr.shape[-2:]
    bottom, right = -height % window, -width % window
    output: Tensor = network(F.pad(lr, (0, right, 0, bottom), mode="reflect") if bottom or right else lr)
    scale = output.shape[-2] // (height + bottom)
    return output[..., : height * scale, : width * scale]
