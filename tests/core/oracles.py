"""Independent answers: torch's, torchvision's and transformers' own pieces, and plain numpy loops."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import vgg
from transformers import Dinov2Backbone, PreTrainedModel

Array = NDArray[np.float64]
Features = dict[str, Tensor]

VGG_INDICES = {"relu1_2": 3, "relu2_2": 8, "relu3_4": 17, "relu4_4": 26, "relu5_4": 35}
SMALLEST_NORM = 1e-4


class Images(NamedTuple):
    sr: Tensor
    gt: Tensor
    lr: Tensor


def normalised(images: Tensor) -> Tensor:
    """ImageNet's normalisation; its constants are float32 numbers, also among float64 images."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).to(images.dtype)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1).to(images.dtype)
    return (images - mean) / std


def upsampled(lr: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    return F.interpolate(lr, size=tuple(size), mode="bicubic", align_corners=align_corners).clamp(0, 1)


def between(gt: Tensor, lr: Tensor, share: float = 0.5, noise: float = 0.05) -> Tensor:
    """An SR image: `share` of the way from the upsampled LR to GT, and noise; a leaf with gradient."""
    generator = torch.Generator().manual_seed(7)
    negative = upsampled(lr, gt.shape[-2:])
    sr = negative + share * (gt - negative) + noise * torch.randn(gt.shape, generator=generator).to(gt)
    return sr.requires_grad_()


def crop(photos: tuple[Tensor, Tensor], count: int, size: int, dtype: torch.dtype = torch.float32) -> Images:
    """The first `count` photos' upper left corners of `size` pixels, and an SR image between LR and GT."""
    gt = photos[0][:count, :, :size, :size].to(dtype)
    lr = F.interpolate(gt, scale_factor=1 / 4, mode="area")
    return Images(between(gt, lr), gt, lr)


def enlarged(photos: tuple[Tensor, Tensor], height: int, width: int) -> Images:
    """One photo mirrored on until it fills any size."""
    tile = torch.cat((photos[0][:1], photos[0][:1].flip(-1)), dim=-1)
    gt = torch.cat((tile, tile.flip(-2)), dim=-2)[..., :height, :width].contiguous()
    lr = F.interpolate(gt, scale_factor=1 / 4, mode="area")
    return Images(between(gt, lr), gt, lr)


def torchvision_vgg(path: Path, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    network: nn.Sequential = vgg.make_layers(vgg.cfgs["E"])
    state = torch.load(path, weights_only=True)
    kept = {name[9:]: tensor for name, tensor in state.items() if name.startswith("features.")}
    network.load_state_dict(kept)
    for layer in network:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    network.eval().to(dtype).requires_grad_(False)
    return network


def torchvision_features(network: nn.Sequential, images: Tensor, indices: Mapping[str, int]) -> Features:
    features: Features = {}
    images = normalised(images)
    names = {index: name for name, index in indices.items()}
    for index, layer in enumerate(network[: max(indices.values()) + 1]):
        images = layer(images)
        if index in names:
            features[names[index]] = images
    return features


def transformers_features(
    folder: Path,
    images: Tensor,
    blocks: Sequence[int],
    network: type[PreTrainedModel] = Dinov2Backbone,
    patch: int = 14,
) -> Features:
    """Maps of a whole Hugging Face backbone, images reflect-padded to whole patches, centred."""
    backbone = network.from_pretrained(folder, out_features=[f"stage{block}" for block in blocks])
    backbone.eval().to(images.dtype).requires_grad_(False)
    missing = [-length % patch for length in images.shape[-2:]]
    sides = [missing[1] // 2, missing[1] - missing[1] // 2, missing[0] // 2, missing[0] - missing[0] // 2]
    maps = backbone(F.pad(normalised(images), sides, mode="reflect")).feature_maps
    return {f"block{block}": features for block, features in zip(blocks, maps)}


def torch_triplet(
    anchor: Features, positive: Features, negative: Features, weights: Mapping[str, float], margin: float, p: float
) -> Tensor:
    """The original loss: weighted features, flattened from dim 2, torch's loss, mean over layers."""
    triplet = nn.TripletMarginLoss(margin=margin, p=p)
    values = []
    for layer, weight in weights.items():
        flat = [(features[layer] * weight).flatten(2) for features in (anchor, positive, negative)]
        values.append(triplet(*flat))
    return torch.stack(values).mean()


def loop_distances(first: Array, second: Array, distance: str) -> list[float]:
    """Distances of one image's features (C, h, w): per channel, or per position for cosine."""
    if distance == "cosine":
        positions = [(row, column) for row in range(first.shape[1]) for column in range(first.shape[2])]
        return [_one_minus_cosine(first[:, row, column], second[:, row, column]) for row, column in positions]
    differences = [first[channel] - second[channel] for channel in range(first.shape[0])]
    if distance == "l2":
        return [float(np.sqrt((difference**2).sum())) for difference in differences]
    return [float(np.abs(difference).sum()) for difference in differences]


def _one_minus_cosine(first: Array, second: Array) -> float:
    units = [vector / np.sqrt((vector**2).sum() + SMALLEST_NORM**2) for vector in (first, second)]
    return float(((units[0] - units[1]) ** 2).sum() / 2)


def loop_sizes(features: Array, distance: str) -> list[float]:
    """How far one image's features are from nothing; a direction has length 1."""
    return [1.0] if distance == "cosine" else loop_distances(features, np.zeros_like(features), distance)


def loop_floor(gaps: Sequence[float] | Array, positive: Array, distance: str) -> float:
    """What is added to the gaps of one image: shares of them and GT's size, or what lacks to a tenth of that size."""
    share = 0.005 if distance == "cosine" else 0.1
    gap, size = float(np.mean(gaps)), float(np.mean(loop_sizes(positive, distance)))
    return max(0.05 * gap + 0.01 * size, share * size - gap) + 1e-6


def loop_relative(features: Sequence[Array], distance: str, push_weight: float) -> tuple[float, float, float]:
    """Section 3 of the formulas for one layer of SR, GT and negative (N, C, h, w): value, pull and push."""
    anchor, positive, negative = features
    pulls, pushes = [], []
    for image in range(anchor.shape[0]):
        a = loop_distances(anchor[image], positive[image], distance)
        n = loop_distances(anchor[image], negative[image], distance)
        p = loop_distances(positive[image], negative[image], distance)
        floor = loop_floor(p, positive[image], distance)
        for term in range(len(p)):
            pulls.append(a[term] / (p[term] + floor))
            pushes.append(max(p[term] - n[term], 0.0) / (p[term] + floor))
    pull, push = float(np.mean(pulls)), float(np.mean(pushes))
    return pull + push_weight * push, pull, push


def arrays(features: Features) -> dict[str, Array]:
    return {layer: tensor.detach().double().numpy() for layer, tensor in features.items()}
