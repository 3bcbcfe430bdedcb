"""Any classification network of torchvision, by the node names of its ``create_feature_extractor``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from clp_basicsr.extractors.base import IMAGENET_MEAN, IMAGENET_STD, Options, freeze
from clp_basicsr.extractors.layers import check_layers
from clp_basicsr.extractors.measured import Axes, MeasuredExtractor, find_axes, keep_outputs
from clp_basicsr.extractors.torchvision_weights import published_state_dict
from clp_basicsr.extractors.weights import (
    RANDOM,
    load_strictly,
    read_state_dict,
    refuse_unknown_tensors,
    seeded_initialisation,
)
from clp_basicsr.messages import did_you_mean, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

PREFIX = "torchvision:"
_HALF = (0.5, 0.5, 0.5)
# DenseNet's files are older than its names.
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


class TorchvisionNodes(MeasuredExtractor):
    """Nodes of a torchvision network: ``layer1``, ``layer2.0.relu``, ``features.8`` and so on.

    A node is what ``torchvision.models.feature_extraction.get_graph_node_names`` calls so in eval mode, or a
    module, which stands for its last node. The defaults are the last module outputs of each stride at which
    something was learned, of equal weights: ``relu``, ``layer1`` … ``layer4`` of a ResNet.
    """

    def __init__(
        self,
        name: str,
        layers: Sequence[str] | None = None,
        weights: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Build the network up to the deepest of ``layers``.

        Args:
            name: "torchvision:" and a name out of ``torchvision.models.list_models(torchvision.models)``.
            layers: node names; None for the defaults.
            weights: None (the published ``DEFAULT`` weights), a file, or ``"random"``.
            **options: as in `FeatureExtractor`; mean and std are those of the published weights.

        Raises:
            ValueError: for an unknown network or layer, one that takes images of one size only, or a file of
                another network.
            FileNotFoundError: if the weights cannot be had.
        """
        whole = _whole_network(name)
        axes, nodes = _map_nodes(name, whole)
        default = _default_layers(whole, axes, nodes)
        chosen = check_layers(name, layers, tuple(nodes), default)
        network = _cut(whole, [nodes[layer] for layer in chosen])
        if weights != RANDOM:
            _load(name, whole, network, weights)
        mean, std = _normalisation(name, whole)
        outputs = {layer: (nodes[layer], axes[nodes[layer]]) for layer in chosen}
        super().__init__(name, freeze(network), outputs, default, mean=mean, std=std, **options)


def _whole_network(name: str) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    model = name.removeprefix(PREFIX)
    if model not in known:
        others = torchvision.models.list_models()
        what = " Detection, segmentation, video, optical flow and quantised networks cannot." if model in others else ""
        raise ValueError(
            "Argument `model` must name one of torchvision's classification networks after 'torchvision:' "
            f"(torchvision.models.list_models(torchvision.models)), but got {shown(name)}.{what}"
            f"{did_you_mean(name, [PREFIX + each for each in known])}"
        )
    with seeded_initialisation(), warnings.catch_warnings():
        # Inception and GoogLeNet announce that their random start will change one day.
        warnings.simplefilter("ignore", FutureWarning)
        network: nn.Module = torchvision.models.get_model(model, weights=None)
    return keep_outputs(network.eval())


def _map_nodes(name: str, whole: nn.Module) -> tuple[dict[str, Axes], dict[str, str]]:
    """Return the axes of each node that gives a map, and the node that each layer name stands for, in order."""
    from torchvision.models.feature_extraction import get_graph_node_names

    _, evaluated = get_graph_node_names(whole, suppress_diff_warning=True)
    names = evaluated[1:]  # the first is the image
    try:
        found = find_axes(_cut(whole, names))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"Argument `model` must name a network that takes images of any size, but got '{name}', which takes one "
            "size only. Vision transformers of any image size come with 'timm:…' and 'dinov2'."
        ) from error
    axes = {node: each for node, each in found.items() if each is not None}
    last: dict[str, str] = {}
    for node in names:
        parts = node.split(".")
        for depth in range(1, len(parts) + 1):
            layer = ".".join(parts[:depth])
            last.pop(layer, None)  # a module stands where its last node does
            last[layer] = node
    return axes, {layer: node for layer, node in last.items() if node in axes}


def _default_layers(whole: nn.Module, axes: Mapping[str, Axes], nodes: Mapping[str, str]) -> list[str]:
    """Return the last module outputs of each stride, of the shallowest modules that have all strides."""
    modules = dict(whole.named_modules())
    learned = {each.stride for node, each in axes.items() if _has_parameters(modules.get(node))}
    best: dict[int, str] = {}
    for depth in range(max(layer.count(".") for layer in nodes) + 1):
        last = {axes[node].stride: layer for layer, node in nodes.items() if layer.count(".") <= depth}
        candidates = {stride: layer for stride, layer in last.items() if stride in learned}
        if len(candidates) > len(best):
            best = candidates
    return list(best.values())


def _has_parameters(module: nn.Module | None) -> bool:
    return module is not None and next(module.parameters(), None) is not None


def _cut(whole: nn.Module, nodes: Sequence[str]) -> nn.Module:
    """Return what of ``whole`` is needed for ``nodes``, which returns them by name."""
    from torchvision.models.feature_extraction import create_feature_extractor

    unique = {node: node for node in nodes}
    both = create_feature_extractor(
        whole, train_return_nodes=unique, eval_return_nodes=unique, suppress_diff_warning=True
    ).eval()
    for node in both.graph.nodes:
        if node.kwargs.get("inplace"):  # the functional ones, as `keep_outputs` does with the modules
            node.kwargs = {**node.kwargs, "inplace": False}
    # It carries a second graph for training and does not pickle; a plain module of the one graph does.
    return fx.GraphModule(both, both.graph)


def _load(name: str, whole: nn.Module, network: nn.Module, weights: str | None) -> None:
    published = _published(name)
    source = weights or f"torchvision's {published}"
    state = published_state_dict(name, published) if weights is None else read_state_dict(weights)
    renamed: dict[str, Tensor] = {_OLD_NAME.sub(r"\1\2", key): tensor for key, tensor in state.items()}
    refuse_unknown_tensors(whole, renamed, source=source, network=name)
    load_strictly(network, renamed, source=source, network=name)


def _published(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(name.removeprefix(PREFIX)).DEFAULT


def _normalisation(name: str, whole: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
    if hasattr(whole, "transform_input"):
        return _HALF, _HALF  # Inception and GoogLeNet turn ImageNet's normalisation into that of their training
    transforms = _published(name).transforms()
    return getattr(transforms, "mean", IMAGENET_MEAN), getattr(transforms, "std", IMAGENET_STD)
