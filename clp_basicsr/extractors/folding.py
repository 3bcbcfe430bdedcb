"""Batch norms and paddings of a frozen network as part of its convolutions: the same maps in fewer passes."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norm(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Let ``convolution`` give what ``norm`` in eval mode makes of its output; the norm is then not to be called.

    Raises:
        ValueError: if the norm counts with each batch's own statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"A batch norm must have running statistics to be folded, but got {norm}.")
    # In float64, so that the maps are off by the rounding of the folded weights alone.
    bias = None if convolution.bias is None else convolution.bias.double()
    scale, shift = (None if each is None else each.double() for each in (norm.weight, norm.bias))
    statistics = norm.running_mean.double(), norm.running_var.double()
    folded = fuse_conv_bn_weights(convolution.weight.double(), bias, *statistics, norm.eps, scale, shift)
    dtype = convolution.weight.dtype
    convolution.weight, convolution.bias = (nn.Parameter(each.to(dtype), requires_grad=False) for each in folded)


def fold_padding(convolution: nn.Conv2d, padding: nn.ZeroPad2d) -> bool:
    """Let ``convolution`` pad with zeros itself, if that is as wide on both sides; say whether it does now."""
    left, right, top, bottom = padding.padding
    if (left, top) != (right, bottom) or convolution.padding != (0, 0):
        return False
    convolution.padding = (top, left)
    return True
