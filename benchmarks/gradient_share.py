"""How large CLPLoss's gradient at the SR image is beside L1's: what `loss_weight` should follow from.

    python benchmarks/gradient_share.py --model vgg --weights random

Walks SR from the upsampled LR (0) to GT (1) on crops of scikit-image's photos, x4, and prints the
ratio of the gradients' L2 norms at loss_weight 1, and the loss_weight that makes them equal. Then, layer by layer, how
large the gap GT-LR is beside GT's features: below a tenth it counts as a tenth (`e` in the README).
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


@torch.no_grad()
def gaps(clp: CLPLoss, gt: Tensor, upsampled: Tensor) -> dict[str, Tensor]:
    """Return for each crop the mean gap over channels in shares of the features' mean size, by layer."""
    distance = clp.criterion.distance
    of_gt, of_lr = clp.features(gt), clp.features(upsampled)
    return {
        layer: distance.between(maps, of_lr[layer]).mean(-1) / distance.size(maps).mean(-1)
        for layer, maps in of_gt.items()
    }


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
    print("gap GT-LR over GT's features: least, median, largest")
    for layer, found in gaps(clp, gt, upsampled.clamp(0, 1)).items():
        print(f"{layer}  {found.min():.2f}  {found.median():.2f}  {found.max():.2f}")


if __name__ == "__main__":
    main()
