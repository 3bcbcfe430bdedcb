"""torchvision's published weights: downloaded by torchvision, or what to do where that fails."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clp_basicsr.messages import reason


def published_state_dict(network: str, published: Any, *, place: str = "") -> dict[str, Tensor]:
    """Return the tensors of ``published``, a member of one of torchvision's weights enumerations.

    Args:
        network: its name in error messages.
        published: such as ``VGG19_Weights.IMAGENET1K_V1``.
        place: where else than in torch's cache the file may be put, for the error message.

    Raises:
        FileNotFoundError: if the file is not in torch's cache and cannot be downloaded.
        ValueError: if it is in the cache and damaged.
    """
    file = published.url.rsplit("/", 1)[-1]
    cache = Path(torch.hub.get_dir()) / "checkpoints" / file
    try:
        state = published.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        raise FileNotFoundError(
            f"The weights of `{network}` could not be downloaded ({reason(error)}). On a machine with a network fetch "
            f"{published.url} and put it at {place}'{cache}', or pass its path: weights='…/{file}'."
        ) from error
    except OSError as error:
        raise FileNotFoundError(
            f"The weights of `{network}` could not be put at or read from '{cache}': {reason(error)}. Set TORCH_HOME "
            f"to a folder that can be written to, with room, or pass a path: weights='…/{file}'."
        ) from error
    except Exception as error:  # torch's reader fails in as many ways as a file can be broken
        raise ValueError(
            f"The weights of `{network}` at '{cache}' are damaged ({reason(error)}). Delete that file and start again."
        ) from error
    return dict(state)
