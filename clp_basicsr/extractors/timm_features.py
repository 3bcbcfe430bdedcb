"""Any network of timm that has ``features_only``, by the names of its ``feature_info``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from clp_basicsr.extractors.base import Options, freeze
from clp_basicsr.extractors.layers import check_layers
from clp_basicsr.extractors.measured import Axes, MeasuredExtractor, find_axes, keep_outputs
from clp_basicsr.extractors.weights import (
    RANDOM,
    hugging_face_cache,
    load_strictly,
    read_state_dict,
    refuse_unknown_tensors,
    seeded_initialisation,
)
from clp_basicsr.messages import did_you_mean, needs_package, reason, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

PREFIX = "timm:"
# Transformers take one size only unless they are told otherwise; how they are told depends on the network.
_ANY_SIZE: tuple[dict[str, bool], ...] = ({}, {"dynamic_img_size": True}, {"strict_img_size": False})


class TimmFeatures(MeasuredExtractor):
    """Feature maps of a timm network, named as in its ``feature_info``: ``layer1``, ``stages.0``, ``blocks.11``.

    The defaults are those of ``features_only`` itself, of equal weights: the last of each reduction, and the
    last three blocks of a vision transformer.
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
            name: "timm:" and a name out of ``timm.list_models()``, with or without a tag of ``list_pretrained()``.
            layers: names in ``feature_info``; None for the defaults.
            weights: None (the published weights), a file with timm's own names, or ``"random"``.
            **options: as in `FeatureExtractor`; mean and std are those of ``pretrained_cfg``.

        Raises:
            ImportError: if timm is not installed.
            ValueError: for an unknown network or layer, one without ``features_only`` or that takes images of
                one size only, or a file of another network.
            FileNotFoundError: if the weights cannot be had.
        """
        timm = _timm(name)
        model = _known_model(timm, name)
        with seeded_initialisation():
            default, available, keywords = _inspect(timm, name, model)
        chosen = check_layers(name, layers, available, default)
        indices = [available.index(layer) for layer in chosen]
        with seeded_initialisation():
            network = _with_weights(timm, name, model, {**keywords, "out_indices": indices}, weights)
        axes = _all_axes(network)
        assert axes is not None
        configuration: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        super().__init__(
            name,
            freeze(network),
            {layer: (index, axes[index]) for index, layer in enumerate(chosen)},
            default,
            mean=configuration["mean"],
            std=configuration["std"],
            **options,
        )


def _timm(name: str) -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(needs_package(f"`{name}`", "timm", "Install it with: pip install timm", error)) from error


def _known_model(timm: Any, name: str) -> str:
    """Return the name as timm knows it.

    Raises:
        ValueError: if it does not.
    """
    model = name.removeprefix(PREFIX)
    architecture, _, tag = model.partition(".")
    known = timm.list_models()
    if architecture not in known:
        allowed, what = known, "networks after 'timm:' (timm.list_models())"
    elif tag and model not in (pretrained := timm.list_models(pretrained=True)):
        allowed, what = pretrained, "published weights after 'timm:' (timm.list_models(pretrained=True))"
    else:
        return model
    hint = did_you_mean(name, [PREFIX + each for each in allowed])
    raise ValueError(f"Argument `model` must name one of timm's {what}, but got {shown(name)}.{hint}")


def _inspect(timm: Any, name: str, model: str) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, bool]]:
    """Return timm's own choice of layers, all layers, and the keywords with which it takes images of any size."""
    for keywords in _ANY_SIZE:
        try:
            network = _create(timm, name, model, keywords)
        except TypeError:  # a keyword that this network does not have
            continue
        axes = _all_axes(network)
        if axes is not None:
            information: Any = network.feature_info
            return tuple(information.module_name()), tuple(each["module"] for each in information.info), keywords
    raise ValueError(
        f"Argument `model` must name a network that takes images of any size, but got '{name}', which does not."
    )


def _create(timm: Any, name: str, model: str, keywords: Mapping[str, Any]) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(model, features_only=True, **keywords)
    except (RuntimeError, AttributeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"timm cannot build `{name}` with features_only=True: {reason(error)}") from error
    return keep_outputs(network.eval())


def _all_axes(network: nn.Module) -> list[Axes] | None:
    try:
        axes = list(find_axes(network).values())
    except (RuntimeError, AssertionError, ValueError):
        return None
    return None if None in axes else [each for each in axes if each is not None]


def _with_weights(timm: Any, name: str, model: str, keywords: Mapping[str, Any], weights: str | None) -> nn.Module:
    if weights == RANDOM:
        return _create(timm, name, model, keywords)
    keywords = {**keywords, "pretrained": True}
    if weights is not None:
        _check_file(timm, name, model, weights)
        keywords["pretrained_cfg_overlay"] = {"file": str(Path(weights).expanduser()), "custom_load": False}
    try:
        return _create(timm, name, model, keywords)
    except OSError as error:  # what the hub's client raises, whichever way it cannot be reached
        raise FileNotFoundError(
            f"The weights of `{name}` could not be had: {reason(error)} {_advice(timm, model)}"
        ) from error


def _check_file(timm: Any, name: str, model: str, weights: str) -> None:
    """Refuse a file that does not hold every tensor of the whole network but its classifier: timm would not.

    It is read here without running code from it, whatever timm's version does when it reads it again.
    """
    state = read_state_dict(weights)
    with seeded_initialisation():
        whole: Any = timm.create_model(model)
    refuse_unknown_tensors(whole, state, source=weights, network=name)
    whole.reset_classifier(0)
    load_strictly(whole, state, source=weights, network=name)


def _advice(timm: Any, model: str) -> str:
    published = timm.models.get_pretrained_cfg(model)
    if published is None or not published.hf_hub_id:
        return "Pass a file with timm's own names: weights='path/to/model.safetensors'."
    folder = published.hf_hub_id.rsplit("/", 1)[-1]
    file = published.hf_hub_filename or "model.safetensors"
    return (
        f"On a machine with a network run `hf download {published.hf_hub_id} {file} --local-dir {folder}`, copy the "
        f"folder here, and pass the file: weights='path/to/{folder}/{file}'. Or put it into the Hugging Face cache "
        f"('{hugging_face_cache()}')."
    )
