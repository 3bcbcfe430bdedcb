"""DINO's features by name against transformers' whole models, and where the network is cut."""

import copy
import gc
import pickle
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    Dinov2Backbone,
    Dinov2Model,
    Dinov2WithRegistersBackbone,
    Dinov2WithRegistersModel,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    DINOv3ViTBackbone,
    DINOv3ViTModel,
    PreTrainedModel,
    PvtV2Config,
    PvtV2Model,
    SwinConfig,
    SwinModel,
)

from clp_basicsr import CLPLoss, build_extractor
from clp_basicsr.extractors import positions

from .oracles import normalised, transformers_features

Photos = tuple[Tensor, Tensor]
Checkpoint = tuple[Path, type[PreTrainedModel], type[PreTrainedModel], int, int]


@pytest.fixture(params=["dinov2", "dinov2_reg", "dinov3"])
def checkpoint(
    request: pytest.FixtureRequest, dino_folder: Path, dino_reg_folder: Path, dinov3_folder: Path
) -> Checkpoint:
    """Folder, backbone class, model class, patch size, tokens before the patches."""
    return {
        "dinov2": (dino_folder, Dinov2Backbone, Dinov2Model, 14, 1),
        "dinov2_reg": (dino_reg_folder, Dinov2WithRegistersBackbone, Dinov2WithRegistersModel, 14, 5),
        "dinov3": (dinov3_folder, DINOv3ViTBackbone, DINOv3ViTModel, 16, 5),
    }[request.param]


def blocks_of(layers: Sequence[int]) -> list[str]:
    return [f"block{layer}" for layer in layers]


def test_images_are_normalised_as_the_checkpoint_says(dino_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dino_folder, tmp_path / "own"))
    assert build_extractor(str(folder)).mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}')
    for extractor in (build_extractor(str(folder)), build_extractor("dinov2_small", weights=str(folder))):
        assert extractor.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
        assert extractor.std.flatten().tolist() == pytest.approx([0.2, 0.2, 0.1])


@pytest.mark.parametrize(
    ("content", "mean", "std"),
    [
        ('{"do_normalize": false, "image_mean": [0.5, 0.4, 0.3]}', [0, 0, 0], [1, 1, 1]),
        ('{"image_mean": null, "image_std": [0.2, 0.2, 0.1]}', [0.485, 0.456, 0.406], [0.2, 0.2, 0.1]),
        # of 8-bit values that nobody brings to [0, 1] first, said in two ways; and of others that are brought to [0, 2]
        (
            '{"rescale_factor": 1, "image_mean": [51, 0, 102], "image_std": [51, 51, 102]}',
            [0.2, 0, 0.4],
            [0.2, 0.2, 0.4],
        ),
        (
            '{"do_rescale": false, "rescale_factor": 9, "image_std": [51, 51, 102]}',
            [0.0019, 0.0018, 0.0016],
            [0.2, 0.2, 0.4],
        ),
        ('{"rescale_factor": 0.00784313725490196, "do_normalize": false}', [0, 0, 0], [0.5, 0.5, 0.5]),
    ],
)
def test_statistics_that_are_not_used_or_not_said(
    content: str, mean: list[float], std: list[float], dino_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(dino_folder, tmp_path / "own"))
    (folder / "preprocessor_config.json").write_text(content)
    extractor = build_extractor(str(folder))
    assert extractor.mean.flatten().tolist() == pytest.approx(mean, rel=0.01)
    assert extractor.std.flatten().tolist() == pytest.approx(std)


def test_statistics_that_are_not_there(dino_folder: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Those of a DINO are known; of others nobody knows them."""
    build_extractor(str(dino_folder))
    assert not recwarn
    HIERARCHICAL["convnext"][0].save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"preprocessor_config\.json .* could not be had.* ImageNet's mean"):
        build_extractor(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        '{"image_mean": 0.5}',
        '{"image_std": [0.5, 0, 1]}',
        '{"rescale_factor": 0}',
        '{"rescale_factor": "1/255"}',
        "[1, 2",
        "[]",
    ],
)
def test_statistics_that_cannot_be_meant(content: str, dino_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dino_folder, tmp_path / "own"))
    (folder / "preprocessor_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"preprocessor_config\.json.* must be .* but "):
        build_extractor(str(folder))


@pytest.mark.parametrize("blocks", [(1,), (2, 3), (1, 4)], ids=str)
def test_blocks_are_the_stages_of_the_whole_backbone(
    checkpoint: Checkpoint, photo_batch: Photos, blocks: tuple[int, ...]
) -> None:
    folder, backbone, _, patch, _ = checkpoint
    images = photo_batch[0][:2, :, : 4 * patch, : 5 * patch]
    features = build_extractor(str(folder), blocks_of(blocks))(images)
    expected = transformers_features(folder, images, blocks, backbone, patch)
    assert list(features) == blocks_of(blocks)
    for layer, tensor in features.items():
        assert tensor.shape == (2, 32, 4, 5)
        torch.testing.assert_close(tensor, expected[layer], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block", [1, 3])
def test_blocks_are_the_models_hidden_states_after_the_layer_norm(
    checkpoint: Checkpoint, photo_batch: Photos, block: int
) -> None:
    folder, _, whole, patch, before = checkpoint
    images = photo_batch[0][:2, :, : 3 * patch, : 2 * patch]
    model = whole.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(normalised(images), output_hidden_states=True).hidden_states[block]
        norm: nn.Module = model.get_submodule("norm" if hasattr(model, "norm") else "layernorm")
        expected = norm(hidden)[:, before:].transpose(1, 2).reshape(2, 32, 3, 2)
    feature = build_extractor(str(folder), blocks_of([block]))(images)[f"block{block}"]
    torch.testing.assert_close(feature, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(29, 41), (128, 120), (17, 31)], ids=str)
def test_images_are_padded_by_reflection_to_whole_patches(
    checkpoint: Checkpoint, photo_batch: Photos, size: tuple[int, int]
) -> None:
    folder, backbone, _, patch, _ = checkpoint
    images = photo_batch[0][:1, :, : size[0], : size[1]]
    features = build_extractor(str(folder), ["block2"])(images)["block2"]
    assert features.shape[-2:] == tuple(-(-length // patch) for length in size)
    expected = transformers_features(folder, images, [2], backbone, patch)["block2"]
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_padding_is_centred(dino_folder: Path, photo_batch: Photos) -> None:
    """An image of 28 pixels with a frame of 2 taken off is padded back to a mirrored frame of 2."""
    inner = photo_batch[0][:1, :, 2:26, 2:26]
    extractor = build_extractor(str(dino_folder), ["block1"])
    mirrored = F.pad(inner, (2, 2, 2, 2), mode="reflect")
    torch.testing.assert_close(extractor(inner)["block1"], extractor(mirrored)["block1"])


def test_position_encodings_are_interpolated_once_for_a_size(
    dino_folder: Path, photo_batch: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is what transformers makes of each size, of these weights, on this device, in this precision."""
    whole = Dinov2Backbone.from_pretrained(dino_folder, out_features=["stage1"]).eval()
    extractor = build_extractor(str(dino_folder), layers=["block1"])
    extractor(photo_batch[0][..., :42, :56])
    sizes: list[Sequence[int]] = []
    interpolate = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *given, **kw: sizes.append(kw["size"]) or interpolate(*given, **kw))
    for height, width, new in ((42, 56, 0), (42, 56, 0), (56, 42, 1), (42, 56, 1), (42, 56, 0)):
        images = photo_batch[0][..., :height, :width]
        sizes.clear()
        seen = extractor(images)["block1"]
        assert len(sizes) == new
        torch.testing.assert_close(seen, whole(normalised(images)).feature_maps[0], rtol=1e-4, atol=1e-4)
    for other in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor)), extractor.double()):
        sizes.clear()
        images = photo_batch[0][..., :42, :56]
        torch.testing.assert_close(other(images)["block1"].float(), seen, rtol=1e-4, atol=1e-4)
        assert len(sizes) == 1
    with torch.inference_mode():
        extractor(photo_batch[0][..., :70, :70])
    leaf = photo_batch[0][..., :70, :70].clone().requires_grad_()
    extractor(leaf)["block1"].square().sum().backward()
    assert leaf.grad is not None


@pytest.mark.parametrize("captured", [True, False])
def test_what_a_captured_graph_reads_outlives_another_size(
    captured: bool, dino_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replayed, a CUDA graph reads the addresses of its capture; here the capture alone is made up."""
    extractor = build_extractor(str(dino_folder), layers=["block1"])
    extractor(torch.rand(1, 3, 42, 56))
    encodings = weakref.ref(extractor.network.embeddings._last[2])  # type: ignore[attr-defined]
    with monkeypatch.context() as during_the_capture:
        during_the_capture.setattr(positions, "_is_captured", lambda tensor: captured)
        extractor(torch.rand(1, 3, 42, 56))
    extractor(torch.rand(1, 3, 56, 42))
    gc.collect()
    assert (encodings() is not None) is captured


def test_smallest_image(checkpoint: Checkpoint) -> None:
    folder, _, _, patch, _ = checkpoint
    extractor = build_extractor(str(folder), ["block1"])
    assert extractor(torch.rand(1, 3, patch, patch + 1))["block1"].shape == (1, 32, 1, 2)
    with pytest.raises(ValueError, match=rf"at least {patch}x{patch} pixels .*got {patch - 1}x40"):
        extractor(torch.rand(1, 3, patch - 1, 40))


@pytest.mark.parametrize("deepest", [1, 3])
def test_network_is_cut_behind_the_deepest_block(checkpoint: Checkpoint, deepest: int) -> None:
    folder, *_ = checkpoint
    whole = CLPLoss(str(folder), layer_weights={"block4": 1})
    cut = CLPLoss(str(folder), layer_weights={"block1": 1, f"block{deepest}": 1})
    count: Callable[[CLPLoss], int] = lambda loss: sum(  # noqa: E731
        type(module).__name__.endswith("Layer") and "Norm" not in type(module).__name__ for module in loss.modules()
    )
    assert count(whole) == 4
    assert count(cut) == deepest


def test_default_layers(dino_folder: Path, dino_reg_folder: Path) -> None:
    weights = dict(zip(blocks_of(range(1, 9)), [1, 0.5, 0.5, 1, 0.5, 0.5, 1, 0.1]))
    assert CLPLoss(str(dino_folder)).layer_weights == weights
    assert CLPLoss(str(dino_reg_folder)).layer_weights == {layer: weights[layer] for layer in blocks_of(range(1, 5))}


def test_order_of_layer_weights_does_not_matter(dino_folder: Path, photo_batch: Photos) -> None:
    gt, lr = photo_batch
    weights = {"block9": 3.0, "block2": 0.5, "block4": 1.0}
    losses = [CLPLoss(str(dino_folder), layer_weights=each) for each in (weights, dict(sorted(weights.items())))]
    assert losses[0].layer_weights == losses[1].layer_weights == weights
    assert losses[0](gt * 0.9, gt, lr) == losses[1](gt * 0.9, gt, lr)


def test_weights_keyword_takes_the_checkpoint_folder(dino_folder: Path, photo_batch: Photos) -> None:
    gt, lr = photo_batch
    given = CLPLoss("dinov2", weights=dino_folder)(gt * 0.9, gt, lr)
    assert given == CLPLoss(str(dino_folder))(gt * 0.9, gt, lr)


SWIN = SwinConfig(embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 2], window_size=4, patch_size=2, image_size=32)
CONVNEXT = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
HIERARCHICAL: dict[str, tuple[PreTrainedModel, int]] = {
    "swin": (SwinModel(SWIN), 2),
    "convnext": (ConvNextModel(ConvNextConfig(**CONVNEXT)), 4),
    "dinov3_convnext": (DINOv3ConvNextModel(DINOv3ConvNextConfig(**CONVNEXT)), 4),
    "pvt_v2": (PvtV2Model(PvtV2Config(**CONVNEXT, num_attention_heads=[1, 1, 2, 2])), 4),
}


@pytest.mark.parametrize("kind", HIERARCHICAL)
@pytest.mark.parametrize("deepest", [1, 3])
def test_hierarchical_backbones_are_padded_to_their_deepest_stride(
    tmp_path: Path, photo_batch: Photos, kind: str, deepest: int
) -> None:
    """Their stages halve: 45x50 pixels become whole positions of the deepest map, and none is lost."""
    model, first_stride = HIERARCHICAL[kind]
    model.save_pretrained(tmp_path)
    images = photo_batch[0][:1, :, :45, :50].clone().requires_grad_()
    extractor = build_extractor(str(tmp_path), ["block1", f"block{deepest}"])
    assert extractor.minimum_size == 2 ** (2 if kind == "swin" else 3) * first_stride
    features = extractor(images)
    stride = first_stride * 2 ** (deepest - 1)
    padded = [-(-length // stride) * stride for length in (45, 50)]
    assert features["block1"].shape[-2:] == tuple(length // first_stride for length in padded)
    assert features[f"block{deepest}"].shape[-2:] == tuple(length // stride for length in padded)
    (gradient,) = torch.autograd.grad(torch.stack([each.square().mean() for each in features.values()]).sum(), images)
    assert (gradient.abs().sum(1) > 0).all()
