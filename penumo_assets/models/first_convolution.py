"""The first convolution of a ResNet, adapted to the lung mask as a fourth input channel."""

from collections.abc import Mapping

import torch
from torch import nn


def widen_first_convolution(model: nn.Module, input_channels: int) -> nn.Module:
    """Replace ``model.conv1`` by one for ``input_channels`` channels, freshly initialised (He et al. 2015)."""
    old = model.conv1
    if not isinstance(old, nn.Conv2d):
        raise TypeError("the model's first layer is not a convolution")
    if old.in_channels == input_channels:
        return model
    new = nn.Conv2d(
        input_channels,
        old.out_channels,
        kernel_size=old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=False,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = new
    return model


def fit_first_convolution(weights: Mapping[str, torch.Tensor], input_channels: int) -> dict[str, torch.Tensor]:
    """A state dict whose ``conv1.weight`` takes ``input_channels`` channels.

    Missing channels get zeros: before its first step the wider network answers exactly as the
    narrow one did, so the trained filters stay useful, and the gradient of a zero weight is not
    zero, so the mask is learnt. Surplus channels are dropped. One gray channel is shared equally
    among three, which leaves the answer to replicated gray unchanged.
    """
    fitted = dict(weights)
    weight = fitted["conv1.weight"]
    if weight.shape[1] == 1 and input_channels >= 3:
        weight = weight.repeat(1, 3, 1, 1) / 3
    missing = input_channels - weight.shape[1]
    if missing > 0:
        zeros = weight.new_zeros(weight.shape[0], missing, *weight.shape[2:])
        weight = torch.cat([weight, zeros], dim=1)
    fitted["conv1.weight"] = weight[:, :input_channels].contiguous()
    return fitted
