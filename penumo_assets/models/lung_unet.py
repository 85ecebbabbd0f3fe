"""A compact U-Net that draws the lungs on a letterboxed frontal chest X-ray.

The network works at a lower resolution than its input: a lung outline is smooth, so its logits can
be computed on a coarse grid and interpolated. What keeps it cheap is where the capacity stands: one
convolution at half the working resolution, residual blocks from a quarter of it downwards.

Radiographs arrive inverted, dim, washed out and framed by bars. The bars are found and the rest is
standardised inside the model, so an affine change of the intensities cannot change its answer.

References: U-Net, Ronneberger et al. 2015, arXiv:1505.04597; residual blocks, He et al. 2016,
arXiv:1512.03385.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penumo_assets.models.lung_unet_arrays import BAR_TOLERANCE, LEAST_DEVIATION, STANDARD_LIMIT


@dataclass(frozen=True)
class LungUNetConfig:
    """Shape of a `LungUNet`; stored beside its weights.

    Parameters
    ----------
    widths : tuple of int
        Channels at 1/2, 1/4, 1/8 ... of the working size.
    blocks : tuple of int
        Residual blocks at 1/4, 1/8 ... (one fewer than ``widths``).
    working_size : int
        Side in pixels that larger inputs are reduced to.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 192)
    blocks: tuple[int, ...] = (1, 2, 2, 2)
    working_size: int = 160

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.widths) - 1 or len(self.widths) < 2:
            raise ValueError(f"widths {self.widths} need {len(self.widths) - 1} block counts, got {self.blocks}")
        if self.working_size % self.stride:
            raise ValueError(f"working_size {self.working_size} must be a multiple of {self.stride}")

    @property
    def stride(self) -> int:
        """Input pixels per pixel of the deepest level."""
        return 2 ** len(self.widths)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        norm = nn.BatchNorm2d(channels)
        # Each block starts as the identity, which lets a deep net train at a high rate from the first step.
        nn.init.zeros_(norm.weight)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), norm)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.second(self.first(features)))


class LungUNet(nn.Module):
    """Letterboxed gray images to lung logits.

    ``forward`` takes (N, 1, H, W) float, gray levels 0..255, and returns (N, 1, H, W) float32 logits. Inputs larger
    than ``config.working_size`` are reduced to it by area averaging and the logits interpolated back;
    smaller ones (sides a multiple of ``config.stride``) are used as they are, which training does.
    """

    def __init__(self, config: LungUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or LungUNetConfig()
        widths = self.config.widths
        pairs = list(pairwise(widths))
        self.stem = convolution(1, widths[0], stride=2)
        self.down = nn.ModuleList(
            nn.Sequential(convolution(a, b, stride=2), *(ResidualBlock(b) for _ in range(count)))
            for (a, b), count in zip(pairs, self.config.blocks, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.up = nn.ModuleList([convolution(widths[0], widths[0]), *(ResidualBlock(w) for w in widths[1:-1])])
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        size = images.shape[-2:]
        working = self.config.working_size
        if max(size) > working:
            images = F.interpolate(images, size=(working, working), mode="area")
        logits = self.features(standardise(images))
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def features(self, standard: Tensor) -> Tensor:
        """Logits at half the resolution of ``standard`` (N, 1, H, W), which `standardise` has made."""
        return self.decode(self.encode(standard))

    def encode(self, standard: Tensor) -> list[Tensor]:
        """Features at 1/2, 1/4, 1/8 ... of the resolution of ``standard``, the deepest last."""
        levels = [self.stem(standard)]
        for down in self.down:
            levels.append(down(levels[-1]))
        return levels

    def decode(self, levels: list[Tensor]) -> Tensor:
        """The logits from the features of `encode`."""
        *levels, features = levels
        for lateral, up in zip(reversed(self.lateral), reversed(self.up), strict=True):
            skip = levels.pop()
            raised = F.interpolate(lateral(features), size=skip.shape[-2:], mode="bilinear", align_corners=False)
            features = up(skip + raised)
        return self.head(features)


def standardise(images: Tensor) -> Tensor:
    """Zero mean and unit variance over each image's content; constant bars around it become 0.

    Parameters
    ----------
    images : Tensor
        (N, 1, H, W) float, gray levels 0..255.

    Returns
    -------
    Tensor
        Same shape, limited to +-`STANDARD_LIMIT`. An image without any content is all 0.
    """
    tolerance = BAR_TOLERANCE * (images.amax((2, 3), keepdim=True) - images.amin((2, 3), keepdim=True))
    rows = _between((images.amax(3, keepdim=True) - images.amin(3, keepdim=True)) > tolerance, 2)
    columns = _between((images.amax(2, keepdim=True) - images.amin(2, keepdim=True)) > tolerance, 3)
    content = rows * columns
    count = content.sum((2, 3), keepdim=True).clamp_min(1.0)
    mean = (images * content).sum((2, 3), keepdim=True) / count
    centred = (images - mean) * content
    deviation = (centred.square().sum((2, 3), keepdim=True) / count).sqrt().clamp_min(LEAST_DEVIATION)
    return (centred / deviation).clamp(-STANDARD_LIMIT, STANDARD_LIMIT)


def is_negative(standard: Tensor, logits: Tensor) -> Tensor:
    """Whether each film is inverted, judged by where its lungs seem to be.

    On a film in the usual polarity the lungs are darker than what lies between them: the spine, the heart, the
    mediastinum. Both polarities' first guess of the lungs is good enough to compare the two.

    Parameters
    ----------
    standard : Tensor
        (N, 1, H, W) from `standardise`.
    logits : Tensor
        (N, 1, H/2, W/2) from `LungUNet.features`.

    Returns
    -------
    Tensor
        (N,) bool; False where no lungs, or nothing between them, were found.
    """
    gray, lung = F.avg_pool2d(standard, 2), (logits > 0).to(standard.dtype)
    between = _between(lung, 3) * (1 - lung)
    in_lungs, in_gap = ((gray * part).sum((1, 2, 3)) / part.sum((1, 2, 3)).clamp_min(1) for part in (lung, between))
    found = (lung.sum((1, 2, 3)) > 0) & (between.sum((1, 2, 3)) > 0)
    return found & (in_lungs > in_gap)


def _between(varies: Tensor, dimension: int) -> Tensor:
    """1.0 from the first to the last non-zero along ``dimension``, else 0.0."""
    seen = varies.float().cummax(dimension).values
    seen_from_end = varies.float().flip(dimension).cummax(dimension).values.flip(dimension)
    return seen * seen_from_end


def to_device(model: LungUNet, device: torch.device) -> LungUNet:
    """``model`` on ``device`` in the channels-last layout, which CPU and GPU convolutions prefer."""
    model.to(device=device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
