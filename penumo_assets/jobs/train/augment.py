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


def augment(images: torch.Tensor, uniform: torch.Tensor, config: AugmentConfig) -> torch.Tensor:
    """Change (N, C, S, S) float32 images in 0..1; same shape, range and memory format.

    Parameters
    ----------
    images : channels red, green, blue and, where C is 4, the lung mask, which moves with the image
        but whose values are left alone.
    uniform : (N, 16) from ``draw``, on the images' device.
    config : what to do; a row is left unchanged with probability 1 - ``config.probability``.
    """
    chosen = (uniform[:, 0] < config.probability).float()
    signed = (2 * uniform - 1) * chosen[:, None]
    images = _move(images, signed, uniform[:, 6] < config.horizontal_flip * chosen, config)
    picture = _expose(images[:, :3], signed, config)
    picture = _erase(picture, uniform, uniform[:, 10] < config.erasing * chosen)
    if images.shape[1] > 3:
        picture = torch.cat([picture, images[:, 3:]], dim=1)
    return picture.contiguous(memory_format=torch.channels_last)


def _move(images: torch.Tensor, signed: torch.Tensor, flip: torch.Tensor, config: AugmentConfig) -> torch.Tensor:
    """Rotate, scale, stretch, shift and flip, in one interpolation; what enters from outside is black."""
    angle = signed[:, 1] * math.radians(config.rotation)
    size = 1 + signed[:, 2] * config.scale
    stretch = torch.sqrt(1 + signed[:, 3] * config.aspect)
    mirror = torch.where(flip, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    # From output to input coordinates in -1..1, hence the division by the size.
    across, down = mirror / (size * stretch), stretch / size
    shift_x, shift_y = 2 * config.shift * signed[:, 4], 2 * config.shift * signed[:, 5]
    theta = torch.stack(
        [
            torch.stack([cos * across, -sin * down, shift_x], dim=1),
            torch.stack([sin * across, cos * down, shift_y], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _expose(picture: torch.Tensor, signed: torch.Tensor, config: AugmentConfig) -> torch.Tensor:
    """Contrast around each image's mean, brightness, gamma; clipped to 0..1."""

    def per_image(column: int) -> torch.Tensor:
        return signed[:, column].view(-1, 1, 1, 1)

    mean = picture.mean(dim=(1, 2, 3), keepdim=True)
    changed = (picture - mean) * (1 + per_image(7) * config.contrast) + mean + per_image(8) * config.brightness
    changed = changed.clamp_(0, 1)
    if config.gamma > 0:
        # A floor keeps the power finite where gamma is below 1 and the pixel is black.
        changed = changed.clamp_min_(1e-6).pow(torch.exp(per_image(9) * config.gamma))
    return changed


def _erase(picture: torch.Tensor, uniform: torch.Tensor, erased: torch.Tensor) -> torch.Tensor:
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
    return torch.where(inside, picture.mean(dim=(1, 2, 3), keepdim=True), picture)
