"""What happens to the images before the network: the negative, channels, ranges, and that inputs are left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clp_basicsr import CLPLoss

from .oracles import Images, arrays, crop, loop_relative, transformers_features, upsampled

Photos = tuple[Tensor, Tensor]
Build = Callable[..., CLPLoss]


@pytest.fixture
def build(dino_folder: Path) -> Build:
    def one_block(**keywords: Any) -> CLPLoss:
        return CLPLoss(str(dino_folder), layer_weights={"block2": 1}, **keywords).double()

    return one_block


def expected(folder: Path, sr: Tensor, gt: Tensor, negative: Tensor) -> float:
    features = [arrays(transformers_features(folder, each.detach(), [2]))["block2"] for each in (sr, gt, negative)]
    return loop_relative(features, "l2", 1.0)[0]


def bordered(photos: Photos) -> Images:
    """A photo with black above and below, where the upsampled LR is exactly equal to GT."""
    sr, gt, lr = crop(photos, 1, 64, torch.float64)
    gt, lr = gt.clone(), lr.clone()
    gt[..., :24, :], lr[..., :6, :] = 0, 0
    gt[..., 40:, :], lr[..., 10:, :] = 0, 0
    return Images(sr, gt, lr)


def test_negative_is_the_bicubic_lr_clamped(build: Build, dino_folder: Path, photo_batch: Photos) -> None:
    sr, gt, lr = crop(photo_batch, 2, 64, torch.float64)
    lr = (lr > 0.5).double()  # hard edges: bicubic overshoots
    plain = F.interpolate(lr, size=(64, 64), mode="bicubic")
    assert plain.min() < -0.01
    assert plain.max() > 1.01
    value = build()(sr, gt, lr).item()
    assert value == pytest.approx(expected(dino_folder, sr, gt, plain.clamp(0, 1)), rel=1e-8)
    assert value != pytest.approx(expected(dino_folder, sr, gt, plain), rel=1e-4)


def test_align_corners_resizes_as_the_first_implementation(
    build: Build, dino_folder: Path, photo_batch: Photos
) -> None:
    sr, gt, lr = crop(photo_batch, 1, 64, torch.float64)
    wanted = expected(dino_folder, sr, gt, upsampled(lr, (64, 64), align_corners=True))
    assert build(align_corners=True)(sr, gt, lr).item() == pytest.approx(wanted, rel=1e-8)
    assert build()(sr, gt, lr).item() != pytest.approx(wanted, rel=1e-4)


def test_invert_equal_pixels_inverts_as_the_first_implementation(
    build: Build, dino_folder: Path, photo_batch: Photos
) -> None:
    sr, gt, lr = bordered(photo_batch)
    plain = upsampled(lr, (64, 64))
    inverted = plain.clone()
    for position in (plain == gt).nonzero():
        inverted[tuple(position)] = 1 - gt[tuple(position)]
    assert 0.2 < (plain == gt).double().mean() < 1
    value = build(invert_equal_pixels=True)(sr, gt, lr).item()
    assert value == pytest.approx(expected(dino_folder, sr, gt, inverted), rel=1e-8)
    assert build()(sr, gt, lr).item() == pytest.approx(expected(dino_folder, sr, gt, plain), rel=1e-8)
    assert value != pytest.approx(expected(dino_folder, sr, gt, plain), rel=1e-4)


@pytest.mark.parametrize(
    "keywords",
    [{}, {"align_corners": True}, {"invert_equal_pixels": True}, {"range_norm": True}, {"precision": "bfloat16"}],
    ids=str,
)
@pytest.mark.parametrize("same_size", [False, True])
def test_inputs_are_never_modified(
    dino_folder: Path, photo_batch: Photos, keywords: dict[str, Any], same_size: bool
) -> None:
    _, gt, lr = bordered(photo_batch)
    inputs = [each.float() for each in (gt * 0.9, gt, upsampled(lr, (64, 64)) if same_size else lr)]
    inputs[0].requires_grad_()
    copies, versions = [each.detach().clone() for each in inputs], [each._version for each in inputs]
    CLPLoss(str(dino_folder), layer_weights={"block1": 1}, **keywords)(*inputs).backward()
    assert all(torch.equal(each.detach(), copy) for each, copy in zip(inputs, copies))
    assert [each._version for each in inputs] == versions


def test_vggs_in_place_relu_does_not_reach_the_inputs(vgg_weights: Path, photo_batch: Photos) -> None:
    inputs = crop(photo_batch, 1, 32)
    copies = [each.detach().clone() for each in inputs]
    loss = CLPLoss("vgg", weights=vgg_weights, layer_weights={"conv1_1": 1, "relu1_2": 1}, use_input_norm=False)
    loss(*inputs).backward()
    assert all(torch.equal(each.detach(), copy) for each, copy in zip(inputs, copies))


@pytest.mark.parametrize("size", [(16, 16), (13, 21), (3, 64), (64, 64), (1, 1)])
def test_lr_of_any_smaller_size_is_resized_to_srs(
    build: Build, dino_folder: Path, photo_batch: Photos, size: tuple[int, int]
) -> None:
    sr, gt, _ = crop(photo_batch, 1, 64, torch.float64)
    lr = F.interpolate(gt, size=size, mode="area") * 0.8
    wanted = expected(dino_folder, sr, gt, upsampled(lr, (64, 64)))
    assert build()(sr, gt, lr).item() == pytest.approx(wanted, rel=1e-8)


def test_one_channel_is_repeated_to_three(build: Build, photo_batch: Photos) -> None:
    grey = [each.detach().mean(1, keepdim=True) for each in crop(photo_batch, 2, 64, torch.float64)]
    one, three = grey[0].clone().requires_grad_(), grey[0].repeat(1, 3, 1, 1).requires_grad_()
    narrow = build()(one, *grey[1:])
    wide = build()(three, *(each.repeat(1, 3, 1, 1) for each in grey[1:]))
    torch.testing.assert_close(narrow, wide, rtol=1e-12, atol=0)
    narrow.backward()
    wide.backward()
    assert one.grad is not None
    assert three.grad is not None
    assert one.grad.shape == (2, 1, 64, 64)
    torch.testing.assert_close(one.grad, three.grad.sum(1, keepdim=True), rtol=1e-9, atol=1e-14)


def test_range_norm_maps_minus_1_to_1_onto_0_to_1(build: Build, photo_batch: Photos) -> None:
    images = crop(photo_batch, 2, 64, torch.float64)
    wide = [2 * each - 1 for each in images]
    value = build(range_norm=True)(*wide).item()
    assert value == pytest.approx(build()(*images).item(), rel=1e-9)
    assert value != pytest.approx(build()(*wide).item(), rel=1e-3)


def test_without_use_input_norm_the_network_sees_the_images_themselves(
    build: Build, dino_folder: Path, photo_batch: Photos
) -> None:
    images = crop(photo_batch, 2, 64, torch.float64)
    seen: list[Tensor] = []
    for use_input_norm in (True, False):
        loss = build(use_input_norm=use_input_norm)
        next(loss.extractor.children()).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        loss(*images)
    padded = F.pad(images.gt, (3, 3, 3, 3), mode="reflect")
    torch.testing.assert_close(seen[2][:2], padded, rtol=0, atol=0)
    mean, std = (
        torch.tensor(each).view(1, 3, 1, 1).double() for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    torch.testing.assert_close(seen[0][:2], (padded - mean) / std, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_accepted(dino_folder: Path, photo_batch: Photos, dtype: torch.dtype) -> None:
    images = [each.detach().to(dtype) for each in crop(photo_batch, 1, 64)]
    loss = CLPLoss(str(dino_folder))
    images[0].requires_grad_()
    value = loss(*images)
    value.backward()
    assert value.dtype == torch.float32
    assert images[0].grad is not None
    assert images[0].grad.dtype == dtype
    assert value.item() == pytest.approx(loss(*(each.detach().float() for each in images)).item(), rel=1e-6)


def test_memory_layout_does_not_matter(build: Build, photo_batch: Photos) -> None:
    images = crop(photo_batch, 2, 64, torch.float64)
    last = [each.detach().contiguous(memory_format=torch.channels_last) for each in images]
    turned = [each.detach().transpose(2, 3).contiguous().transpose(2, 3) for each in images]
    value = build()(*images).item()
    assert build()(*last).item() == pytest.approx(value, rel=1e-10)
    assert build()(*turned).item() == pytest.approx(value, rel=1e-10)
