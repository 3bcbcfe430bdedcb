"""How large CLPLoss's gradient at the SR image is beside L1's: what `loss_weight` should follow from.

    python benchmarks/gradient_share.py --model vgg --weights random

Walks SR from the upsampled LR (0) to GT (1) on crops of scikit-image's photos, x4, and prints the
ratio of the gradients' L2 norms at loss_weight 1, and the loss_weight that makes them equal.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from clp_basicsr import CLPLoss, register
from clp_basicsr.demo.photos import photo
from clp_basicsr.images import resize_to

_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
_CORNERS = ((50, 100), (120, 200))
_SIDE = 128


def crops() -> tuple[Tensor, Tensor]:
    """Return GT ``(8, 3, 128, 128)`` and LR ``(8, 3, 32, 32)`` in [0, 1]."""
    register()
    from basicsr.utils.matlab_functions import imresize

    gt = []
    for name in _PHOTOS:
        image = torch.from_numpy(photo(name)).permute(2, 0, 1).float() / 255
        gt += [image[:, top : top + _SIDE, left : left + _SIDE].contiguous() for top, left in _CORNERS]
    return torch.stack(gt), torch.stack([imresize(image, 0.25) for image in gt]).clamp(0, 1)


def gradient_norm(loss: Callable[[Tensor], Tensor], sr: Tensor) -> float:
    sr = sr.clone().requires_grad_()
    loss(sr).backward()  # type: ignore[no-untyped-call]
    assert sr.grad is not None
    return float(sr.grad.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--weights", help="a file, a checkpoint folder, or 'random'")
    parser.add_argument("--push-weight", type=float, default=0.1, help="default: that of options/train, 0.1")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    gt, lr = crops()
    upsampled = resize_to(lr, (_SIDE, _SIDE))
    clp = CLPLoss(options.model, weights=options.weights, push_weight=options.push_weight)
    print(f"{options.model}, weights {options.weights or 'published'}, push_weight {options.push_weight}")
    print("walked  gradient CLP/L1  loss_weight for 1:1")
    for walked in (0.05, 0.3, 0.6, 0.9):
        sr = torch.lerp(upsampled, gt, walked)
        ratio = gradient_norm(lambda x: clp(x, gt, lr), sr) / gradient_norm(lambda x: (x - gt).abs().mean(), sr)
        print(f"{walked:6.2f}  {ratio:15.1f}  {1 / ratio:19.2e}")


if __name__ == "__main__":
    main()
