"""What the loss sees of one image: maps, gradient and shares by layer, as numbers; drawing is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from clp_basicsr.criteria import Criterion
from clp_basicsr.criteria.base import Layer
from clp_basicsr.float16_range import features_in_range
from clp_basicsr.frames import as_images
from clp_basicsr.images import at_least_float32, check_images, resize_to
from clp_basicsr.loss import CLPLoss
from clp_basicsr.maps import LayerMaps, layer_maps, map_value
from clp_basicsr.one_image import alone
from clp_basicsr.references import References
from clp_basicsr.tiles import OVERLAP, SIZE, TiledNetwork


class LayerNumbers(NamedTuple):
    """What a layer's maps come to."""

    to_target: float
    """d(sr, gt): for ``l2`` the root mean square over channels, else the mean."""
    to_negative: float
    """d(sr, negative), likewise."""
    pull: float
    push: float
    loss: float
    """Its part of the loss, at weight 1."""


@dataclass(frozen=True)
class LayerView:
    """One layer at one image."""

    maps: LayerMaps
    """Four maps ``(h, w)``, on the CPU."""
    gradient: Tensor
    """Norm over colours of the gradient of its part of the loss at the SR image, ``(H, W)``."""
    numbers: LayerNumbers
    loss_share: float
    """Its part of the loss; all layers' add up to 1."""
    gradient_share: float
    """Its gradient's component along the whole gradient, over that; all layers' add up to 1. Below 0 it works
    against the others."""


@dataclass(frozen=True)
class Inspection:
    """One image as the loss sees it."""

    images: Mapping[str, Tensor]
    """"LR" (upsampled), "SR" and "GT", ``(3, H, W)`` in [0, 1], on the CPU."""
    layers: Mapping[str, LayerView]
    loss: float
    """At weight 1."""
    gradient: Tensor
    """Norm over colours of the loss's gradient at the SR image, at weight 1, ``(H, W)``."""
    gradient_ratio: float
    """Its norm over that of L1's; NaN where SR equals GT."""
    network: str
    criterion: str
    distance: str
    tiles: int
    left_out: tuple[str, ...]
    """Kinds of negatives that only a training run has."""


def inspect(
    loss: CLPLoss, sr: Tensor, target: Tensor, lr: Tensor, *, tile: int = SIZE, overlap: int = OVERLAP
) -> Inspection:
    """Look at the first image of a batch with the network, criterion and layers of ``loss``.

    Nothing of ``loss`` changes: no counter, no random state. Its schedule and weight do not matter.

    Args:
        loss: what to look with.
        sr: super-resolved images ``(N, 3, H, W)`` or clips, in the loss's value range.
        target: ground truth of the same shape.
        lr: low-quality images ``(N, 3, h, w)``.
        tile: larger images go through the network in tiles of this many pixels, see `TiledNetwork`.
        overlap: what a tile sees beyond its core.

    Raises:
        TypeError: if an input is not a floating point tensor.
        ValueError: if shapes or devices do not fit, or the image is too small for the network or the tiles.
    """
    sr, target, lr = (each.detach()[:1] for each in as_images(sr, target, lr))
    check_images(sr, target, lr)
    shown, gt, small = (loss.prepared(each) for each in (sr, target, lr))
    with torch.no_grad():
        negatives, criterion, left_out = alone(loss, gt, small, lr)
        references = References.of(gt, negatives)
    loss.extractor.make_ready(shown)  # tiles are large enough where the image may not be
    extract = partial(features_in_range, loss.features) if loss.extractor.computes_in_float16 else loss.features
    network = TiledNetwork(extract, shown, tile, overlap)
    seen, anchors = network.features(references.images()), network.features(shown)
    views: dict[str, tuple[LayerMaps, LayerNumbers]] = {}
    at_features: dict[str, Tensor] = {}
    normaliser = criterion.normaliser(list(loss.layer_weights.values()))
    for layer in list(anchors):
        features = anchors.pop(layer), *references.split(seen.pop(layer))
        maps, numbers, at_features[layer] = _view(criterion, features, loss.layer_weights[layer], normaliser)
        views[layer] = LayerMaps(*(network.crop(each)[0].cpu() for each in maps)), numbers
    gradients = {layer: _at_the_hosts(sr, each, loss) for layer, each in network.gradients(shown, at_features).items()}
    whole = torch.stack(tuple(gradients.values())).sum(0)
    parts_of_loss = [numbers.loss for _, numbers in views.values()]
    shares = zip(_shares(parts_of_loss), _along(gradients, whole))
    return Inspection(
        images=_on_cpu({"LR": resize_to(small, (gt.shape[-2], gt.shape[-1])), "SR": shown, "GT": gt}),
        layers={
            layer: LayerView(maps, _norm(gradients[layer]), numbers, of_loss, of_gradient)
            for (layer, (maps, numbers)), (of_loss, of_gradient) in zip(views.items(), shares)
        },
        loss=sum(parts_of_loss),
        gradient=_norm(whole),
        gradient_ratio=_over_l1(whole, sr, target),
        network=loss.extractor.name,
        criterion=type(loss.criterion).__name__,
        distance=loss.criterion.distance.name,
        tiles=len(network.tiles),
        left_out=left_out,
    )


def _view(
    criterion: Criterion, features: Layer, weight: float, normaliser: float
) -> tuple[LayerMaps, LayerNumbers, Tensor]:
    """Return maps and numbers of a layer, and the gradient of its part of the loss at SR's features."""
    anchor, positive, negatives = features
    with torch.enable_grad():
        anchor = anchor.detach().requires_grad_()
        terms = criterion(anchor, positive, negatives, weight)
        value = terms.loss / normaliser
        (gradient,) = torch.autograd.grad(value, anchor)
    maps = layer_maps(criterion, anchor.detach(), positive, negatives, weight)
    distance = criterion.distance
    numbers = LayerNumbers(
        map_value(maps.to_target, distance),
        map_value(maps.to_negative, distance),
        float(terms.pull),
        float(terms.push),
        float(value.detach()),
    )
    return maps, numbers, gradient


def _at_the_hosts(sr: Tensor, gradient: Tensor, loss: CLPLoss) -> Tensor:
    """Carry a gradient at `prepared` images back to the images as the host has them: in [-1, 1], of one channel."""
    leaf = at_least_float32(sr).detach().requires_grad_()
    with torch.enable_grad():
        (carried,) = torch.autograd.grad(loss.prepared(leaf), leaf, gradient)
    return carried


def _shares(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total if total else 0.0 for value in values]


def _along(gradients: Mapping[str, Tensor], whole: Tensor) -> list[float]:
    return _shares([float((gradient.cpu().double() * whole.cpu().double()).sum()) for gradient in gradients.values()])


def _norm(gradient: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(gradient[0], dim=0)
    return norm.cpu()


def _over_l1(gradient: Tensor, sr: Tensor, target: Tensor) -> float:
    l1 = (sr != target).sum().sqrt() / sr.numel()  # its gradient is a sign over the number of values, everywhere
    return float(torch.linalg.vector_norm(gradient) / l1) if l1 else float("nan")


def _on_cpu(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: each[0].clamp(0, 1).cpu() for name, each in images.items()}
