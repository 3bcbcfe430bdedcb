"""``compile: true``: the network's passes and the criterion as compiled graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from clp_basicsr.criteria import Criterion, Terms
from clp_basicsr.extractors.base import FeatureExtractor
from clp_basicsr.gradients import walked_twice

BACKEND = "inductor"
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
    return [criterion(anchors[layer], *references[layer], weight) for layer, weight in weights.items()]


class Functions(NamedTuple):
    """The functions above, for both passes through the network."""

    run_anchors: Callable[..., dict[str, Tensor]]
    run_references: Callable[..., dict[str, Tensor]]
    terms_by_layer: Callable[..., list[Terms]]


EAGER = Functions(run_network, run_network, terms_by_layer)


def compiled() -> Functions:
    """Return the functions, to be compiled at their first calls; a second size makes them general for all sizes.

    One graph each, or an error: nothing falls back to eager in silence.
    """
    # SR and the references differ in batch size: in one graph that would pass for a changing size.
    return Functions(_compiled(run_network), _compiled(run_network), _compiled(terms_by_layer))


def _compiled(function: _Call) -> _Call:
    # Dynamo counts recompilations by code object. Its own for each loss, or several would share one limit.
    original = cast(FunctionType, function)
    own = FunctionType(original.__code__.replace(), original.__globals__, original.__name__)
    in_one_graph = torch.compile(own, fullgraph=True, backend=BACKEND)

    def call(*arguments: Any) -> Any:
        with walked_twice():
            return in_one_graph(*arguments)

    return cast(_Call, call)
