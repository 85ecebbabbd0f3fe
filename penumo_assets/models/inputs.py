"""From stored tensors to what a network takes: channels, size, normalisation."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch.nn import functional

TENSOR_SIZE = 224
TENSOR_CHANNELS = 4
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MASK_MEAN = 0.5
MASK_STD = 0.5


def to_unit_images(batch: torch.Tensor, input_channels: int, image_size: int) -> torch.Tensor:
    """(N, 224, 224, 4) uint8 -> (N, input_channels, image_size, image_size) float32 in 0..1, a plane per channel.

    Channels are red, green, blue and lung mask; three of them leave the mask out. Shrinking
    averages over the area, so that no frequency folds back.

    Raises
    ------
    ValueError
        If the batch is not (N, 224, 224, 4) uint8.
    """
    if batch.ndim != 4 or tuple(batch.shape[1:]) != (TENSOR_SIZE, TENSOR_SIZE, TENSOR_CHANNELS):
        raise ValueError(f"expected a batch (N, {TENSOR_SIZE}, {TENSOR_SIZE}, {TENSOR_CHANNELS}), got {batch.shape}")
    if batch.dtype != torch.uint8:
        raise ValueError(f"expected uint8 images, got {batch.dtype}")
    # What is one number per image and channel is quick on planes, and slow on pixels of four values.
    images = batch[..., :input_channels].permute(0, 3, 1, 2)
    images = images.to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)
    if image_size != TENSOR_SIZE:
        images = functional.interpolate(images, size=(image_size, image_size), mode="area")
    return images


def standardise(images: torch.Tensor, normalisation: Mapping[str, list[float]]) -> torch.Tensor:
    """(N, C, H, W) images in 0..1, less each channel's mean and divided by its deviation: channels_last.

    The images themselves are changed too.
    """
    mean, std = (per_channel(tuple(normalisation[name]), images.dtype, images.device) for name in ("mean", "std"))
    return images.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


@cache
def per_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(1, C, 1, 1): sent to a GPU once, because it waits for what is sent."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1)


def normalise(batch: torch.Tensor, metadata: Mapping[str, Any]) -> torch.Tensor:
    """(N, 224, 224, 4) uint8 -> what the network takes: (N, C, size, size) float32, channels_last, same device."""
    images = to_unit_images(batch, metadata["input_channels"], metadata["image_size"])
    return standardise(images, metadata["normalisation"])


def default_normalisation(input_channels: int) -> dict[str, list[float]]:
    """ImageNet's statistics for the image, so that its weights fit, and -1/+1 for the mask."""
    mean, std = [*IMAGENET_MEAN, MASK_MEAN], [*IMAGENET_STD, MASK_STD]
    return {"mean": mean[:input_channels], "std": std[:input_channels]}
