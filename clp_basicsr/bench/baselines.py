"""The losses that people have, as they are usually written. Untrained: weights cost the same whatever they are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from clp_basicsr.extractors import build_extractor
from clp_basicsr.extractors.dino_models import DEFAULT_LAYER_WEIGHTS as DINO_LAYERS
from clp_basicsr.extractors.dino_models import DINO_MODELS
from clp_basicsr.extractors.vgg import DEFAULT_LAYER_WEIGHTS as VGG_LAYERS
from clp_basicsr.hosts.basicsr import register
from clp_basicsr.images import reflect_pad_to_multiple, resize_to

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The loss of SR, GT and LR."""


def perceptual_loss() -> tuple[nn.Module, Step]:
    """BasicSR's own PerceptualLoss with the default layers of ``vgg``; its VGG19 is not downloaded."""
    network = _basicsr_loss()
    return network, _of_16_pixels("perceptual", lambda sr, target, lr: network(sr, target)[0])


def three_pass_vgg() -> tuple[nn.Module, Step]:
    """The first CLPLoss's formula on BasicSR's VGG19: three passes, and torch's triplet loss on each layer."""
    network = _basicsr_loss().vgg
    return network, _of_16_pixels("three_pass:vgg", _three_passes(network, VGG_LAYERS))


def three_pass_dinov2(name: str) -> tuple[nn.Module, Step]:
    """The first CLPLoss's formula on all blocks of DINOv2, as the hub's code runs them, on images padded as here."""
    from transformers import MODEL_FOR_BACKBONE_MAPPING, AutoConfig

    _, kind, numbers = DINO_MODELS[name]
    stages = [layer.replace("block", "stage") for layer in DINO_LAYERS]
    config = AutoConfig.for_model(kind, **numbers, out_features=stages)
    network = MODEL_FOR_BACKBONE_MAPPING[type(config)](config).eval().requires_grad_(False)

    def features(images: Tensor) -> dict[str, Tensor]:
        return dict(zip(DINO_LAYERS, network(reflect_pad_to_multiple(images, 14)).feature_maps))

    return network, _three_passes(features, DINO_LAYERS)


def lpips_vgg() -> tuple[nn.Module, Step]:
    """The package lpips with its VGG16.

    Raises:
        ImportError: if it is not installed.
    """
    network = (
        importlib.import_module("lpips")
        .LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
        .requires_grad_(False)
    )
    return network, _of_16_pixels("lpips", lambda sr, target, lr: network(sr, target, normalize=True).mean())


def _of_16_pixels(name: str, step: Step) -> Step:
    """Say what is wrong with crops that VGG's four poolings leave nothing of."""

    def checked(sr: Tensor, target: Tensor, lr: Tensor) -> Tensor:
        if min(sr.shape[-2:]) < 16:
            raise ValueError(
                f"Crops must be at least 16x16 pixels for `{name}`, but got {sr.shape[-2]}x{sr.shape[-1]}."
            )
        return step(sr, target, lr)

    return checked


def _three_passes(run: Callable[[Tensor], Mapping[str, Tensor]], weights: Mapping[str, float]) -> Step:
    triplet = nn.TripletMarginLoss()

    def step(sr: Tensor, target: Tensor, lr: Tensor) -> Tensor:
        negative = resize_to(lr, (sr.shape[-2], sr.shape[-1]))
        anchors, positives, negatives = run(sr), run(target.detach()), run(negative.detach())
        values = [
            triplet(*((maps[layer] * weight).flatten(2) for maps in (anchors, positives, negatives)))
            for layer, weight in weights.items()
        ]
        return torch.stack(values).mean()

    return step


def _basicsr_loss() -> Any:
    register()
    from basicsr.archs import vgg_arch
    from basicsr.losses.basic_loss import PerceptualLoss
    from torchvision.models import vgg19

    # It would download trained weights, and has no way to be told not to.
    with mock.patch.object(vgg_arch.vgg, "vgg19", return_value=vgg19(weights=None)):
        loss = PerceptualLoss(dict(VGG_LAYERS))
    for name, kernel in build_extractor("vgg", weights="random").named_buffers():
        if name.startswith("network."):
            loss.vgg.vgg_net.get_parameter(name.removeprefix("network.")).data.copy_(kernel)
    return loss
