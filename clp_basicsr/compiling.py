"""``compile: true``: the network's passes and the criterion as compiled graphs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from clp_basicsr.autograd_graphs import keep_buffers
from clp_basicsr.criteria import Criterion, Terms
from clp_basicsr.extractors.base import FeatureExtractor

BACKEND = "inductor"
_numbers = itertools.count()
_Call = TypeVar("_Call", bound=Callable[..., Any])


def run_network(network: FeatureExtractor, images: Tensor) -> dict[str, Tensor]:
    """Return the feature maps of images, in the precision that they are computed in."""
    return network.as_computed(images)


def terms_by_layer(
    criterion: Criterion,
    weights: Mapping[str, float],
    anchors: Mapping[str, Tensor],
    references: Mapping[str, tuple[Tensor, Tensor]],
) -> list[Terms]:
    """Return the terms of each layer of ``weights``."""
    layers = [(anchors[layer], *references[layer]) for layer in weights]
    return criterion.of_layers(layers, list(weights.values()))


class Functions(NamedTuple):
    """The functions above, for both passes through the network."""

    run_anchors: Callable[..., dict[str, Tensor]]
    run_references: Callable[..., dict[str, Tensor]]
    terms_by_layer: Callable[..., list[Terms]]


EAGER = Functions(run_network, run_network, terms_by_layer)


def compiled(channels_last: bool) -> Functions:
    """Return the functions, to be compiled at their first calls; a second size makes them general for all sizes.

    One graph each, or an error: nothing falls back to eager in silence.

    Args:
        channels_last: whether the network's maps lie so. For sizes that change Inductor would give that up, and from
            torch 2.14 on compile the backward pass of a convolution anew for each size.
    """
    # Only where maps lie so already: if Inductor moves them, its backward pass takes them to be of one size.
    keep_buffers()
    options = {"force_layout_optimization": True} if channels_last and BACKEND == "inductor" else None
    # SR and the references differ in batch size: in one graph that would pass for a changing size.
    return Functions(_compiled(run_network, options), _compiled(run_network, options), _compiled(terms_by_layer))


def _compiled(function: _Call, options: dict[str, Any] | None = None) -> _Call:
    # Dynamo counts recompilations by code object, and by file, line and name it remembers the sizes that it saw: those
    # of another loss, or of the other pass, would pass for sizes that change. So each function is one of its own.
    original = cast(FunctionType, function)
    name = f"{original.__name__}_{next(_numbers)}"
    own = FunctionType(original.__code__.replace(co_name=name), original.__globals__, name)
    return cast(_Call, torch.compile(own, fullgraph=True, backend=BACKEND, options=options))
