"""Grad-CAM: which regions of an image moved a class's score, and how much of that lies in the lungs or in a box."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class NoConvolution(ValueError):
    """The network has no convolution, so there is nothing to explain in space."""


def last_convolutional_stage(model: nn.Module) -> nn.Module:
    """Where Grad-CAM looks: ``layer4`` of a ResNet, else the last convolution.

    Raises
    ------
    NoConvolution
        If there is none.
    """
    stage = getattr(model, "layer4", None)
    if isinstance(stage, nn.Module):
        return stage
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise NoConvolution(f"{type(model).__name__} has no convolution to explain")
    return convolutions[-1]


def grad_cam(model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Class activation maps ReLU(sum_k mean(dy/dA_k) A_k) (Selvaraju et al. 2017, arXiv:1610.02391).

    Parameters
    ----------
    model : a network (N, C, H, W) -> (N, classes) in evaluation mode; its gradients stay untouched.
    images : (N, C, H, W) float32, normalised.
    targets : (N,) int64, the class whose logit is explained.

    Returns
    -------
    (N, h, w) float32 in 0..1 at the stage's own resolution (7 x 7 of a ResNet at 224), scaled by each map's maximum;
    all 0 where nothing raised the score.
    """
    kept: list[torch.Tensor] = []
    hook = last_convolutional_stage(model).register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        with torch.enable_grad():
            # The input carries the gradient, so that a network with frozen weights can be explained too.
            logits = model(images.detach().clone().requires_grad_(True))
            score = logits.gather(1, targets[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, kept[-1])
    finally:
        hook.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = functional.relu((weights * kept[-1].detach()).sum(dim=1, keepdim=True))
    maps = maps[:, 0]
    peak = maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(peak > 0, maps / peak.clamp_min(1e-12), torch.zeros_like(maps)).detach()


def inside(maps: np.ndarray, regions: np.ndarray) -> dict[str, np.ndarray]:
    """How much of each map lies within a region: the lungs, or the boxes that readers drew.

    Parameters
    ----------
    maps : (N, h, w) float of 0 or more, as ``grad_cam`` gives them.
    regions : (N, H, W) uint8, 255 inside.

    Returns
    -------
    ``energy``, the share of the map's sum (Wang et al. 2020, arXiv:1910.01279); ``pointing``, 1 where its highest cell
    lies in the region by half or more (the pointing game, Zhang et al. 2018, arXiv:1608.00507); ``even``, the share of
    the picture that is the region, which an even map would have. (N,) float64 each; NaN where the map is all 0 or there
    is no region.
    """
    share = torch.from_numpy(regions.astype(np.float32) / 255)[:, None]
    cells = (
        functional.adaptive_avg_pool2d(share, maps.shape[1:])[:, 0].numpy().reshape(len(maps), -1).astype(np.float64)
    )
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    total = flat.sum(axis=1)
    known = (total > 0) & cells.any(axis=1)
    highest = cells[np.arange(len(maps)), flat.argmax(axis=1)]
    energy = np.divide((flat * cells).sum(axis=1), total, out=np.full(len(maps), np.nan), where=known)
    return {
        "energy": energy,
        "pointing": np.where(known, highest >= 0.5, np.nan),
        "even": np.where(known, cells.mean(axis=1), np.nan),
    }
