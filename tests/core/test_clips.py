"""Clips: every SR frame is compared with its own LR frame."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clp_basicsr import CLPLoss

CLIPS, FRAMES = 2, 5


@pytest.fixture(scope="module")
def loss() -> CLPLoss:
    return CLPLoss("vgg", weights="random", layer_weights={"relu1_2": 1})


def clips(seed: int) -> Tensor:
    return torch.rand(CLIPS, FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


SR, GT = clips(0), clips(1)
LR = F.avg_pool3d(GT, (1, 4, 4))


def by_hand(loss: CLPLoss, frames: list[tuple[int, int]]) -> float:
    """The mean of the loss over single frames: a batch is the mean of its images."""
    values = [loss(*(each[clip, frame][None] for each in (SR, GT, LR))).item() for clip, frame in frames]
    return sum(values) / len(values)


ALL = [(clip, frame) for clip in range(CLIPS) for frame in range(FRAMES)]


def test_clips_all_three(loss: CLPLoss) -> None:
    assert loss(SR, GT, LR).item() == pytest.approx(by_hand(loss, ALL), rel=1e-5)


def test_frames_beside_lr_clips(loss: CLPLoss) -> None:
    assert loss(SR.flatten(0, 1), GT.flatten(0, 1), LR).item() == pytest.approx(by_hand(loss, ALL), rel=1e-5)


def test_centre_frames_beside_lr_clips(loss: CLPLoss) -> None:
    value = loss(SR[:, 2], GT[:, 2], LR).item()
    assert value == pytest.approx(by_hand(loss, [(clip, 2) for clip in range(CLIPS)]), rel=1e-5)
    assert value != pytest.approx(loss(SR[:, 2], GT[:, 2], LR[:, 0]).item(), rel=1e-3)


def test_gradient_has_the_shape_of_the_clips(loss: CLPLoss) -> None:
    sr = SR.clone().requires_grad_()
    loss(sr, GT, LR).backward()
    assert sr.grad is not None
    assert bool((sr.grad.abs().amax((2, 3, 4)) > 0).all())


@pytest.mark.parametrize(
    ("sr", "target", "lr", "said"),
    [
        (SR, GT, LR[:, :4], "the same N and T"),
        (SR, GT[:1], LR, "the same N and T"),
        (SR, GT, LR[:, 0], "clips (N, T, C, H, W) all three"),
        (SR, GT[:, 0], LR[:, 0], "clips (N, T, C, H, W) all three"),
        (SR[:, 0, :][:1], GT[:, 0][:1], LR, "N or N x T"),
    ],
)
def test_clips_that_do_not_fit(loss: CLPLoss, sr: Tensor, target: Tensor, lr: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=r"Clips|Images") as caught:
        loss(sr, target, lr)
    assert said in str(caught.value)
    assert str(tuple(sr.shape)) in str(caught.value)
