"""The published DINOv2 and DINOv3 networks: names, sizes, and the layers that the first CLPLoss took."""

from __future__ import annotations

from typing import Any

# Blocks 0 to 7 of the hub's `get_intermediate_layers`, the first CLPLoss's choice for ViT-B/14.
DEFAULT_LAYER_WEIGHTS = {
    "block1": 1.0,
    "block2": 0.5,
    "block3": 0.5,
    "block4": 1.0,
    "block5": 0.5,
    "block6": 0.5,
    "block7": 1.0,
    "block8": 0.1,
}

# Published sizes: what `weights="random"` builds without a hub.
_VIT_SIZES: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "giant": {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True},
}
_DINOV3_SIZES: dict[str, dict[str, Any]] = {
    "small": {**_VIT_SIZES["small"], "intermediate_size": 1536},
    "small_plus": {**_VIT_SIZES["small"], "intermediate_size": 1536, "use_gated_mlp": True, "hidden_act": "silu"},
    "base": {**_VIT_SIZES["base"], "intermediate_size": 3072},
    "large": {**_VIT_SIZES["large"], "intermediate_size": 4096},
    "huge_plus": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "intermediate_size": 5120,
        "use_gated_mlp": True,
        "hidden_act": "silu",
    },
    "7b": {
        "hidden_size": 4096,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "intermediate_size": 8192,
        "use_gated_mlp": True,
        "hidden_act": "silu",
    },
}
_DINOV3_IDS = {
    "small": "vits16",
    "small_plus": "vits16plus",
    "base": "vitb16",
    "large": "vitl16",
    "huge_plus": "vith16plus",
    "7b": "vit7b16",
}


def _dino_models() -> dict[str, tuple[str, str, dict[str, Any]]]:
    models: dict[str, tuple[str, str, dict[str, Any]]] = {}
    for size, config in _VIT_SIZES.items():
        config = {**config, "image_size": 518}
        models[f"dinov2_{size}"] = (f"facebook/dinov2-{size}", "dinov2", config)
        models[f"dinov2_{size}_reg"] = (
            f"facebook/dinov2-with-registers-{size}",
            "dinov2_with_registers",
            config,
        )
    for size, config in _DINOV3_SIZES.items():
        hub_id = f"facebook/dinov3-{_DINOV3_IDS[size]}-pretrain-lvd1689m"
        models[f"dinov3_{size}"] = (hub_id, "dinov3_vit", {**config, "num_register_tokens": 4})
    return models


DINO_MODELS = _dino_models()
"""Short name to (Hugging Face id, its model type, the numbers of its architecture)."""
