"""The lung U-Net by torch: on a GPU, films are reduced, looked at and enlarged there, a batch at a time.

Importing this loads torch.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from penumo_assets.imaging.segment_engine import BATCH, EXTREME, LOOKS, SIZE, Seen
from penumo_assets.imaging.segment_weights import Tensors, read_weights
from penumo_assets.models.device import compute_device
from penumo_assets.models.lung_unet import LungUNet, is_negative, standardise, to_device


class TorchEngine:
    """`segment_engine.Engine` on any of torch's devices; ``threads`` are those of its CPU, for the whole process."""

    def __init__(self, tensors: Tensors, device: str, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = compute_device(device)
        self.model = to_device(fold_batch_norms(lung_unet(tensors)), self.device)
        # cuDNN plans anew for every number of films, which takes longer than looking at a few more of them.
        self.least = 1 if self.device.type == "cpu" else BATCH

    def see(self, images: np.ndarray) -> Seen:
        seen = self._see(np.resize(images, (max(self.least, len(images)), *images.shape[1:])))
        return Seen(*(part[: len(images)] for part in vars(seen).values()))

    @torch.inference_mode()
    def _see(self, images: np.ndarray) -> Seen:
        batch = torch.from_numpy(images[:, None]).to(self.device, torch.float32)
        coarse, fine = (standardise(self._reduced(batch, side)) for side in LOOKS)
        levels = self.model.encode(coarse)
        first, deepest = self.model.decode(levels), levels[-1]
        negative = is_negative(coarse, first)
        if negative.any():
            levels, turned = self.model.encode(-coarse), negative.view(-1, 1, 1, 1)
            first = torch.where(turned, self.model.decode(levels), first)
            deepest = torch.where(turned, levels[-1], deepest)
            fine = torch.where(turned, -fine, fine)
        second = self.model.features(fine.flip(3)).flip(3)
        first = _resized(first, second.shape[-1])
        logits = ((first + second) / 2).nan_to_num(-EXTREME, EXTREME, -EXTREME)
        found = _resized(logits, SIZE).sigmoid_()[:, 0], first[:, 0], second[:, 0], deepest, negative
        return Seen(*(each.cpu().numpy() for each in found))

    def _reduced(self, batch: Tensor, side: int) -> Tensor:
        """(N, 1, 512, 512) gray levels by area averaging to ``side``, rounded to levels as OpenCV rounds them."""
        shares = area_shares(side).to(self.device)
        return (shares @ batch @ shares.T).round_().contiguous(memory_format=torch.channels_last)


@cache
def area_shares(side: int) -> Tensor:
    """(side, 512): the share that each pixel has in each of ``side`` equal parts of the row."""
    ends = torch.arange(side + 1, dtype=torch.float64) * SIZE / side
    pixels = torch.arange(SIZE)
    overlap = torch.minimum(ends[1:, None], pixels + 1) - torch.maximum(ends[:-1, None], pixels)
    return (overlap.clamp_min(0) * side / SIZE).float()


def _resized(logits: Tensor, side: int) -> Tensor:
    return interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)


def load_lung_unet(path: Path, expected_sha256: str | None = None) -> tuple[LungUNet, str]:
    """A `LungUNet` in eval mode with the weights in ``path``, and the file's SHA-256; see `LungSegmenter`."""
    tensors, digest = read_weights(path, expected_sha256)
    return lung_unet(tensors), digest


def lung_unet(tensors: Tensors) -> LungUNet:
    """A `LungUNet` in eval mode with these weights."""
    model = LungUNet()
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, strict=False)
    return model.eval()


def fold_batch_norms(model: LungUNet) -> LungUNet:
    """Fold every batch normalisation into the convolution before it, in place; for inference only."""
    for module in list(model.modules()):
        if isinstance(module, torch.nn.Sequential):
            for index in range(len(module) - 1):
                convolution, norm = module[index], module[index + 1]
                if isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                    module[index] = fuse_conv_bn_eval(convolution, norm)
                    module[index + 1] = torch.nn.Identity()
    return model
