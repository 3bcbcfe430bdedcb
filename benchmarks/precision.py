"""What half precision does to the loss and to its gradient at the SR image, beside BasicSR's PerceptualLoss.

    python -m benchmarks.precision --models vgg dinov2_base efficientnet_lite0
    python -m benchmarks.precision --models torchvision:vgg16 --weights vgg16.safetensors

Value and gradient on crops of scikit-image's photos, x4, against float32: SR is a third of the way from LR to GT.
Untrained weights, but for EfficientNet-Lite and those that are given.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gradient_share import crops
from clp_basicsr import CLPLoss
from clp_basicsr.bench.baselines import perceptual_loss
from clp_basicsr.devices import chosen_device
from clp_basicsr.images import resize_to

_IMAGES = 2
_SCALE = 1e4  # PerceptualLoss's gradient in float16 would underflow without it; CLPLoss sees to that itself

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def measured(loss: Loss, sr: Tensor, gt: Tensor, lr: Tensor) -> tuple[float, Tensor]:
    """Return the value and the gradient at SR."""
    sr = sr.clone().requires_grad_()
    value = loss(sr, gt, lr)
    (gradient,) = torch.autograd.grad(value * _SCALE, sr)
    return value.item(), gradient.flatten().double()


def losses(model: str, precision: str, device: torch.device, weights: str | None) -> Loss:
    """Return a loss that runs its network in ``precision``; "perceptual" is BasicSR's, under autocast."""
    if model != "perceptual":
        weights = weights or (None if model.startswith("efficientnet") else "random")
        return CLPLoss(model, weights=weights, precision=precision, push_weight=0.1, diagnostics=False).to(device)
    network, step = perceptual_loss()
    network.to(device)
    dtype = getattr(torch, precision)

    def run(sr: Tensor, gt: Tensor, lr: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            return step(sr, gt, lr).float()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vgg", "perceptual", "efficientnet_lite0", "dinov2_base"])
    parser.add_argument("--weights", help="a file for all of them")
    parser.add_argument("--device")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    device = chosen_device(options.device)
    gt, lr = (images[:_IMAGES].to(device) for images in crops())
    sr = torch.lerp(resize_to(lr, (gt.shape[-2], gt.shape[-1])), gt, 1 / 3)
    print("| loss | precision | value, difference | gradient, cosine | gradient, length |")
    print("|---|---|---|---|---|")
    for model in options.models:
        value, gradient = measured(losses(model, "float32", device, options.weights), sr, gt, lr)
        for precision in ("bfloat16", "float16"):
            other, found = measured(losses(model, precision, device, options.weights), sr, gt, lr)
            cosine = torch.cosine_similarity(gradient, found, dim=0).item()
            length = (found.norm() / gradient.norm()).item()
            print(
                f"| `{model}` | {precision} | {abs(other / value - 1):.2%} | {cosine:.4f} | {length:.3f} |", flush=True
            )


if __name__ == "__main__":
    main()
