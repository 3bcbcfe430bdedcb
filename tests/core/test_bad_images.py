"""Images that cannot be meant, and the LR batch of a bound model."""

import copy
import gc
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clp_basicsr import CLPLoss

Photos = tuple[Tensor, Tensor]


class Model:
    """What BasicSR's models are to the loss: something with `lq`."""

    def __init__(self, lq: Tensor | None) -> None:
        self.lq = lq


@pytest.fixture
def loss() -> CLPLoss:
    return CLPLoss("efficientnet_lite0", layer_weights={"block3": 1})


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


SR, LR = images(2, 3, 32, 32), images(2, 3, 8, 8)
ARGUMENTS = ("sr", "target", "lr")


def refused(loss: CLPLoss, kind: type[Exception], *said: str, **changed: object) -> None:
    with pytest.raises(kind, match=r".") as caught:
        loss(**{"sr": SR, "target": SR, "lr": LR, **changed})
    for part in said:
        assert part in str(caught.value)


def test_the_unchanged_images_pass(loss: CLPLoss) -> None:
    assert loss(SR, SR, LR).isfinite()


@pytest.mark.parametrize("shape", [(2, 3, 32, 40), (2, 3, 16, 16), (1, 3, 32, 32), (2, 1, 32, 32)])
def test_sr_and_target_of_different_shapes(loss: CLPLoss, shape: tuple[int, ...]) -> None:
    refused(
        loss, ValueError, "`sr` and `target`", "same shape", str(shape), str(tuple(SR.shape)), target=images(*shape)
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_lr_of_another_batch_size(loss: CLPLoss, batch: int) -> None:
    refused(loss, ValueError, "`lr` and `sr`", "batch size", f"{batch} and 2", lr=images(batch, 3, 8, 8))


@pytest.mark.parametrize("size", [(33, 8), (8, 33), (64, 64)])
def test_lr_larger_than_sr(loss: CLPLoss, size: tuple[int, int]) -> None:
    refused(loss, ValueError, "larger than `sr`", str((2, 3, *size)), "loss(sr, target, lr)", lr=images(2, 3, *size))


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_neither_one_nor_three_channels(loss: CLPLoss, argument: str, channels: int) -> None:
    shape = (2, channels, 32, 32)
    refused(loss, ValueError, f"`{argument}`", "1 or 3 channels", str(shape), **{argument: images(*shape)})


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 2, 3, 32, 32), (32,), ()])
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_neither_of_four_dimensions(loss: CLPLoss, argument: str, shape: tuple[int, ...]) -> None:
    refused(loss, ValueError, f"`{argument}`", "(N, 3, H, W)", str(shape), **{argument: images(*shape)})


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (2, 3, 0, 32)])
def test_empty_batch(loss: CLPLoss, shape: tuple[int, ...]) -> None:
    refused(loss, ValueError, "`sr`", "empty", str(shape), sr=images(*shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_no_floating_point(loss: CLPLoss, argument: str, dtype: torch.dtype) -> None:
    refused(loss, TypeError, f"`{argument}`", "floating point", str(dtype), "/ 255", **{argument: SR.to(dtype)})


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_floats_that_know_no_arithmetic(loss: CLPLoss, argument: str) -> None:
    small = SR.to(torch.float8_e4m3fn)
    refused(loss, TypeError, f"`{argument}`", "float8_e4m3fn", f"{argument}.float()", **{argument: small})


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_no_dense_tensor(loss: CLPLoss, argument: str) -> None:
    refused(loss, TypeError, f"`{argument}`", "dense", "sparse_coo", **{argument: SR.to_sparse()})
    ragged = torch.nested.nested_tensor([torch.rand(3, 32, 32), torch.rand(3, 30, 32)])
    refused(loss, TypeError, f"`{argument}`", "dense", "nested", **{argument: ragged})


def test_clips_without_frames(loss: CLPLoss) -> None:
    refused(loss, ValueError, "`lr` must not be empty", lr=images(2, 0, 3, 8, 8))


@pytest.mark.parametrize("auto_weight", [None, 0.1])
def test_ground_truth_made_in_inference_mode(auto_weight: float | None) -> None:
    model = Model(None)
    model.cri_pix = nn.MSELoss()  # type: ignore[attr-defined]  # unlike L1Loss it keeps GT for its gradient
    loss, twin = (CLPLoss("random_convs", auto_weight=auto_weight).bind(model) for _ in range(2))
    with torch.inference_mode():
        target, lr = SR.clone(), LR.clone()
    sr = (SR * 0.9).requires_grad_()
    assert loss(sr, target, lr) == twin(sr, SR, LR)


@pytest.mark.parametrize("given", [np.zeros((2, 3, 32, 32), np.float32), [1.0], "image", 3])
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_no_tensor(loss: CLPLoss, argument: str, given: object) -> None:
    refused(loss, TypeError, f"`{argument}`", "torch.Tensor", type(given).__name__, **{argument: given})


def test_none_instead_of_images(loss: CLPLoss) -> None:
    refused(loss, TypeError, "`sr`", "NoneType", sr=None)
    refused(loss, (TypeError, ValueError), "`target`", "NoneType", target=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(3, 32), (32, 3), (1, 1)])
def test_images_too_small_for_the_network(loss: CLPLoss, size: tuple[int, int]) -> None:
    small = images(2, 3, *size)
    refused(
        loss,
        ValueError,
        "at least 4x4",
        f"{size[0]}x{size[1]}",
        "block3",
        sr=small,
        target=small,
        lr=images(2, 3, 1, 1),
    )


@pytest.mark.parametrize("argument", ["target", "lr"])
def test_images_on_different_devices(loss: CLPLoss, argument: str) -> None:
    there = (SR if argument == "target" else LR).to("meta")
    refused(loss, ValueError, f"`{argument}` and `sr`", "same device", "meta", "cpu", **{argument: there})


def test_images_on_another_device_than_the_loss(loss: CLPLoss) -> None:
    moved = {"sr": SR.to("meta"), "target": SR.to("meta"), "lr": LR.to("meta")}
    refused(loss, ValueError, "same device", "loss.to('meta')", **moved)


def test_no_lr_and_nothing_bound(loss: CLPLoss) -> None:
    refused(loss, ValueError, "loss.bind(model)", "loss(sr, target, lr)", lr=None)
    with pytest.raises(ValueError, match=r"loss\.bind\(model\)"):
        loss(SR, SR)


def test_lr_of_the_bound_model(loss: CLPLoss) -> None:
    model = Model(LR)
    assert loss.bind(model) is loss
    sr = SR * 0.9
    assert loss(sr, SR) == loss(sr, SR, LR)
    model.lq = LR.flip(0)
    assert loss(sr, SR) == loss(sr, SR, LR.flip(0)) != loss(sr, SR, LR)


def test_a_given_lr_goes_before_the_bound_models(loss: CLPLoss) -> None:
    model = Model(LR.flip(0))
    unbound = loss(SR * 0.9, SR, LR)
    assert loss.bind(model)(SR * 0.9, SR, LR) == unbound


@pytest.mark.parametrize("owner", [Model(None), nn.Linear(1, 1)], ids=["None", "no attribute"])
def test_bound_model_without_lq(loss: CLPLoss, owner: object) -> None:
    loss.bind(owner)
    refused(loss, ValueError, type(owner).__name__, "`lq`", "feed_data", lr=None)


def test_lq_is_checked_like_a_given_lr(loss: CLPLoss) -> None:
    model = Model(images(1, 3, 8, 8))
    loss.bind(model)
    refused(loss, ValueError, "batch size", lr=None)


def test_binding_does_not_keep_the_model_alive(loss: CLPLoss) -> None:
    model = Model(LR)
    loss.bind(model)
    loss(SR, SR)
    del model
    gc.collect()
    refused(loss, ValueError, "loss.bind(model)", lr=None)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_binding_is_not_copied(loss: CLPLoss, copied: Callable[[CLPLoss], CLPLoss]) -> None:
    model = Model(LR)
    loss.bind(model)
    loss(SR, SR)
    duplicate = copied(loss)
    refused(duplicate, ValueError, "loss.bind(model)", lr=None)
    assert duplicate.summary is None
    assert loss(SR, SR).isfinite()


def test_a_bound_loss_is_no_part_of_the_model(loss: CLPLoss) -> None:
    """A model that holds its loss can still be saved and counted."""
    holder = nn.Module()
    holder.loss = loss
    holder.lq = LR
    loss.bind(holder)
    assert holder.state_dict() == {}
    assert len(list(holder.modules())) == 1 + len(list(loss.modules()))


def test_binding_something_that_cannot_be_referenced_weakly(loss: CLPLoss) -> None:
    with pytest.raises(TypeError, match=r"cannot be referenced weakly.*loss\(sr, target, lr\)"):
        loss.bind({"lq": torch.rand(1, 3, 8, 8)})
