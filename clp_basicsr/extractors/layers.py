"""Which of a network's layers are extracted."""

from __future__ import annotations

from collections.abc import Sequence

from clp_basicsr.messages import did_you_mean, shown

_MOST_LISTED = 40
"""VGG19's 32 layers are read at a glance, the 400 nodes of a DenseNet are not."""


def check_layers(
    network: str, given: Sequence[str] | None, available: Sequence[str], default: Sequence[str]
) -> tuple[str, ...]:
    """Return the layers to extract in order of depth; ``default`` where none are given.

    Raises:
        ValueError: if the network has no such layer, or none is given.
    """
    wanted = default if given is None else given
    listing = _listing(available, default)
    if not wanted:
        raise ValueError(f"Layers of `{network}` must name at least one among {listing}, but got none.")
    for layer in wanted:
        if layer not in available:
            raise ValueError(
                f"Layer names of `{network}` must be among {listing}, but got {shown(layer)}."
                f"{did_you_mean(layer, available)}"
            )
    return tuple(layer for layer in available if layer in wanted)


def _listing(layers: Sequence[str], default: Sequence[str]) -> str:
    if len(layers) > 8 and layers[0] == "block1":
        return f"'{layers[0]}' … '{layers[-1]}'"
    if len(layers) > _MOST_LISTED:
        return f"{list(default)} and {len(layers) - len(default)} more"
    return str(list(layers))
