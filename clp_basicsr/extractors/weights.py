"""Weights: read safely from files, or random when somebody asks for that by name."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from clp_basicsr.messages import reason, shown

RANDOM = "random"
_COUNTER = "num_batches_tracked"  # a frozen batch norm counts nothing
_SEED = 0


@contextmanager
def seeded_initialisation() -> Iterator[None]:
    """Build a network inside, on the CPU, from a fixed seed, and leave the caller's random state alone."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(_SEED)  # `torch.manual_seed` is for the GPUs' generators, too
        yield


def folder_at(path: str | Path) -> Path | None:
    """Return the folder of a name that may be anything, None where there is none."""
    # os.path says no where pathlib raises: names that are too long, homes of users there are none of.
    expanded = os.path.expanduser(path)
    return Path(expanded) if os.path.isdir(expanded) else None


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read tensors by name from a ``.pth`` or ``.safetensors`` file without running code from it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or holds anything but tensors by name.
    """
    path = Path(os.path.expanduser(path))
    if not os.path.isfile(path):
        what = "nothing" if folder_at(path) is None else "a folder"
        raise FileNotFoundError(
            f"Argument `weights` must name a weights file, but there is {what} at {shown(str(path))}."
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(content, Mapping) or not content:
        raise ValueError(
            f"Weights file '{path}' must hold tensors by name (a state dict), but holds a {type(content).__name__}."
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"Weights file '{path}' must hold tensors by name (a state dict), but its entry {shown(name)} is a "
                f"{type(value).__name__}. Save `model.state_dict()` itself."
            )
    return dict(content)


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # a header can name types and sizes that nothing can have
        raise ValueError(
            f"Weights file '{path}' must be a safetensors file, but it cannot be read: {reason(error)}. Fetch it again."
        ) from error


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Weights file '{path}' must hold plain tensors, but it is damaged or a pickle with other "
            "objects in it, which could run code and is not loaded. Save `model.state_dict()` with torch.save, "
            "or use a .safetensors file."
        ) from error
    except Exception as error:  # torch's reader fails in as many ways as a file can be broken
        raise ValueError(
            f"Weights file '{path}' must be a PyTorch file, but it cannot be read: {reason(error)}. Fetch it again."
        ) from error


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, source: str, network: str) -> None:
    """Load ``state`` into ``module``, every tensor of it; tensors of deeper layers may be left over.

    Batch norms' counters may be missing, as in files from before torch 0.4.1 (DenseNet's and VGG-BN's of torchvision).

    Raises:
        ValueError: if a tensor is missing or has another shape: the file is of another network.
    """
    own = module.state_dict()
    state = {**{name: tensor for name, tensor in own.items() if name.endswith(_COUNTER)}, **state}
    for name, parameter in own.items():
        given = state.get(name)
        if given is None or not _holds_numbers(given, parameter) or given.shape != parameter.shape:
            raise ValueError(
                f"Weights in '{source}' must be those of `{network}`: '{name}' should be {tuple(parameter.shape)}, "
                f"but the file {_what_it_has(given, parameter)}."
            )
    module.load_state_dict({name: state[name] for name in own})


def _holds_numbers(given: Tensor, parameter: Tensor) -> bool:
    """Whether ``given`` is dense, of the CPU, and of the same sort: copying drops imaginary parts in silence."""
    plain = not given.is_nested and not given.is_quantized and given.layout == torch.strided and not given.is_meta
    return plain and given.is_floating_point() == parameter.is_floating_point() and not given.is_complex()


def _what_it_has(given: Tensor | None, parameter: Tensor) -> str:
    if given is None:
        return "has no such tensor"
    if _holds_numbers(given, parameter):
        return f"has {tuple(given.shape)}"
    kind = "nested" if given.is_nested else f"{given.layout}, {given.dtype}, {given.device}"
    return f"has another kind of tensor ({kind})"


def refuse_unknown_tensors(module: nn.Module, state: Mapping[str, Tensor], *, source: str, network: str) -> None:
    """Refuse a file with tensors that ``module``, the whole network, does not have.

    A deeper network of the same family begins with the same names and shapes: it shows only in what is left over.

    Raises:
        ValueError: if there is such a tensor.
    """
    known = {
        f"{path}.{name}".removeprefix(".")
        for path, each in module.named_modules()
        for name in (*each._parameters, *each._buffers)
    }
    for name in state:
        if name not in known:
            raise ValueError(
                f"Weights in '{source}' must be those of `{network}`, but they hold '{name}', which it does not have."
            )


def hugging_face_cache() -> str:
    """Return the folder in which Hugging Face's client keeps what it downloads."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(HF_HUB_CACHE)
