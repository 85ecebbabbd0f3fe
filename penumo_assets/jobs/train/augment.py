"""Random changes to chest radiographs, on a whole batch, on the device it is on.

What stands here is what differs between two films of one patient: how the patient stood (rotation,
shift, scale), how the tube and the processing were set (contrast, brightness, gamma), what lies over
the chest (erasing). A left-right flip is off by default: it makes a dextrocardia with a reversed
side marker, which no honest image shows. Aspect ratio varies because it differs between hospitals
rather than between diseases.

The random numbers come in as a tensor, one row per image, drawn by ``draw`` from a generator on the
CPU: so a batch split over processes is changed exactly as the whole batch would be.
"""

import math

import torch
from torch.nn import functional

from penumo_assets.configs.train import AugmentConfig

NUMBERS_PER_IMAGE = 16
ERASED_AREA = (0.02, 0.15)


def draw(images: int, generator: torch.Generator) -> torch.Tensor:
    """(images, 16) float32 uniform in [0, 1): all the chance that ``augment`` uses."""
    return torch.rand(images, NUMBERS_PER_IMAGE, generator=generator)


def is_gray(images: torch.Tensor) -> bool:
    """Whether red, green and blue are the same in all of a (N, 224, 224, 4) uint8 batch on the CPU."""
    red, green, blue = (images[..., channel] for channel in range(3))
    return torch.equal(red[:1], green[:1]) and torch.equal(red, green) and torch.equal(red, blue)


def augment(images: torch.Tensor, uniform: torch.Tensor, config: AugmentConfig, *, gray: bool = False) -> torch.Tensor:
    """Change (N, C, S, S) float32 images in 0..1; same shape and range, a plane per channel.

    Parameters
    ----------
    images : channels red, green, blue and, where C is 4, the lung mask, which moves with the image
        but whose values are left alone.
    uniform : (N, 16) from ``draw``, on the images' device.
    config : what to do; a row is left unchanged with probability 1 - ``config.probability``.
    gray : red, green and blue are the same, so that one of them is changed for all three: the same to the last digit
        but one, in half of the time.
    """
    colours = 1 if gray else 3
    chosen = (uniform[:, 0] < config.probability).float()
    signed = (2 * uniform - 1) * chosen[:, None]
    moved = _move(images[:, 3 - colours :], signed, uniform[:, 6] < config.horizontal_flip * chosen, config)
    picture = moved[:, :colours]
    _expose(picture, signed, config)
    _erase(picture, uniform, uniform[:, 10] < config.erasing * chosen)
    return torch.cat([picture, picture, moved], dim=1) if gray else moved


def _move(images: torch.Tensor, signed: torch.Tensor, flip: torch.Tensor, config: AugmentConfig) -> torch.Tensor:
    """Rotate, scale, stretch, shift and flip, in one interpolation; what enters from outside is black."""
    angle = _per_image(signed[:, 1]) * math.radians(config.rotation)
    size = 1 + _per_image(signed[:, 2]) * config.scale
    stretch = torch.sqrt(1 + _per_image(signed[:, 3]) * config.aspect)
    mirror = torch.where(_per_image(flip), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    # From output to input coordinates in -1..1, hence the division by the size.
    across, down = mirror / (size * stretch), stretch / size
    shift_x, shift_y = (2 * config.shift * _per_image(signed[:, column]) for column in (4, 5))
    side = images.shape[-1]
    centres = (2 * torch.arange(side, device=images.device) + 1) / side - 1
    x, y = centres[None, None, :], centres[None, :, None]
    # Planes of x and of y, each the sum of a row and a column: `affine_grid` multiplies matrices instead.
    grid = torch.empty(len(images), 2, side, side, device=images.device)
    torch.add(cos * across * x, shift_x - sin * down * y, out=grid[:, 0])
    torch.add(sin * across * x, shift_y + cos * down * y, out=grid[:, 1])
    return functional.grid_sample(
        images, grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode="zeros", align_corners=False
    )


def _per_image(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1)


def _expose(picture: torch.Tensor, signed: torch.Tensor, config: AugmentConfig) -> None:
    """Contrast around each image's mean, brightness, gamma; clipped to 0..1. In place."""
    contrast, brightness, gamma = (signed[:, column].view(-1, 1, 1, 1) for column in (7, 8, 9))
    mean = picture.mean(dim=(1, 2, 3), keepdim=True)
    factor = 1 + contrast * config.contrast
    picture.mul_(factor).add_(mean * (1 - factor) + brightness * config.brightness).clamp_(0, 1)
    if config.gamma > 0:
        # By its logarithm the power takes half of the time; a floor keeps that of a black pixel finite.
        picture.clamp_min_(1e-6).log_().mul_(torch.exp(gamma * config.gamma)).exp_()


def _erase(picture: torch.Tensor, uniform: torch.Tensor, erased: torch.Tensor) -> None:
    """Random erasing (Zhong et al. 2020, https://arxiv.org/abs/1708.04896): a rectangle becomes the image's mean."""
    side = picture.shape[-1]
    area = ERASED_AREA[0] + uniform[:, 11] * (ERASED_AREA[1] - ERASED_AREA[0])
    aspect = torch.exp((2 * uniform[:, 12] - 1) * math.log(3))
    height, width = torch.sqrt(area * aspect).clamp(max=1), torch.sqrt(area / aspect).clamp(max=1)
    top, left = uniform[:, 13] * (1 - height), uniform[:, 14] * (1 - width)
    centres = (torch.arange(side, device=picture.device) + 0.5) / side
    rows = (centres >= top[:, None]) & (centres < (top + height)[:, None])
    columns = (centres >= left[:, None]) & (centres < (left + width)[:, None])
    inside = (rows[:, :, None] & columns[:, None, :] & erased[:, None, None]).unsqueeze(1)
    torch.where(inside, picture.mean(dim=(1, 2, 3), keepdim=True), picture, out=picture)
