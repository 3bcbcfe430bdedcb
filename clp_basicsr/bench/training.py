"""Whole training steps of BasicSR's networks with L1, with and without the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clp_basicsr.bench.contenders import Contender
from clp_basicsr.bench.measuring import Call, images, training_step
from clp_basicsr.hosts.basicsr import register


def _esrgan() -> nn.Module:
    from basicsr.archs.rrdbnet_arch import RRDBNet

    return _module(RRDBNet(num_in_ch=3, num_out_ch=3, scale=4, num_feat=64, num_block=23, num_grow_ch=32))


def _swinir() -> nn.Module:
    from basicsr.archs.swinir_arch import SwinIR

    return _module(
        SwinIR(
            upscale=4, in_chans=3, img_size=48, window_size=8, img_range=1.0, depths=[6] * 6, embed_dim=180,
            num_heads=[6] * 6, mlp_ratio=2, upsampler="pixelshuffle", resi_connection="1conv",
        )
    )  # fmt: skip


def _srvgg() -> nn.Module:
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    return _module(SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=16, upscale=4, act_type="prelu"))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"esrgan": _esrgan, "swinir": _swinir, "srvgg": _srvgg}


def build_network(name: str) -> nn.Module:
    """Return a network out of `NETWORKS`."""
    register()
    return NETWORKS[name]()


def calls(
    name: str | None,
    network: nn.Module | None,
    contenders: Sequence[Contender],
    batch: int,
    size: int,
    device: torch.device,
) -> tuple[dict[str, Call], dict[str, str]]:
    """Return what costs something, and by whose cost each one's own is divided.

    Args:
        name: of ``network``, a key of `NETWORKS`; None for the losses alone.
        network: whose whole steps are meant; None as above.
        contenders: the losses.
        batch: how many crops.
        size: their height and width in pixels.
        device: where they are.
    """
    if name is None or network is None:
        alone = {each.name: training_step(each, batch, size, device) for each in contenders}
        return alone, {each.name: each.rival for each in contenders}
    whole = _steps(name, network, contenders, batch, size, device)
    return whole, dict.fromkeys(whole, name)


def _steps(
    name: str, network: nn.Module, contenders: Sequence[Contender], batch: int, size: int, device: torch.device
) -> dict[str, Call]:
    """Return a step of ``network``, of that name, with L1 alone, and one more with each contender."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    _, target, lr = images(batch, size, device)

    def step(contender: Contender | None) -> None:
        optimizer.zero_grad()
        sr = network(lr)
        loss = F.l1_loss(sr, target)
        if contender is not None:
            loss = loss + 0.01 * contender.step(sr, target, lr)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    named = {f"{name} + {each.name}": lambda each=each: step(each) for each in contenders}
    return {name: lambda: step(None), **named}


def _module(network: Any) -> nn.Module:
    module: nn.Module = network
    return module
