"""Video: clips ``(N, T, C, H, W)`` as the batches of images that the loss compares."""

from __future__ import annotations

from torch import Tensor

from clp_basicsr.images import check_tensor


def as_images(sr: Tensor, target: Tensor, lr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three as ``(N, C, H, W)``, each SR frame beside the LR frame it was made from.

    Args:
        sr: images ``(N, C, H, W)``; or clips ``(N, T, C, H, W)``, whose frames become images.
        target: ground truth of the same shape.
        lr: images, or clips ``(N, T, C, h, w)``. Beside N images it is the centre frame ``lr[:, T // 2]``
            that counts, as for BasicSR's VideoBaseModel; beside N x T images it is every frame, as
            for its VideoRecurrentGANModel.

    Raises:
        TypeError: if one is no dense floating point tensor.
        ValueError: if one is empty, or clips do not have the same N and T.
    """
    for name, images in (("sr", sr), ("target", target), ("lr", lr)):
        check_tensor(name, images)
    dimensions = [images.dim() for images in (sr, target, lr)]
    if dimensions == [4, 4, 5]:
        if sr.shape[0] == lr.shape[0]:
            return sr, target, lr[:, lr.shape[1] // 2]
        if sr.shape[0] == lr.shape[0] * lr.shape[1]:
            return sr, target, lr.flatten(0, 1)
        raise ValueError(
            f"Clips `lr` (N, T, C, h, w) beside images `sr` must have N or N x T of these, but got {tuple(lr.shape)} "
            f"and {tuple(sr.shape)}."
        )
    if dimensions == [5, 5, 5]:
        if not sr.shape[:2] == target.shape[:2] == lr.shape[:2]:
            raise ValueError(
                "Clips `sr`, `target` and `lr` must have the same N and T in (N, T, C, H, W), but got "
                f"{tuple(sr.shape)}, {tuple(target.shape)} and {tuple(lr.shape)}."
            )
        return sr.flatten(0, 1), target.flatten(0, 1), lr.flatten(0, 1)
    if 5 in dimensions and min(dimensions) >= 4:
        raise ValueError(
            "Images must be clips (N, T, C, H, W) all three, or `lr` alone, but got `sr` "
            f"{tuple(sr.shape)}, `target` {tuple(target.shape)} and `lr` {tuple(lr.shape)}."
        )
    return sr, target, lr
