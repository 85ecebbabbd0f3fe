"""Grad-CAM: which regions of an image moved a class's score."""

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
    (N, H, W) float32 in 0..1, scaled by each map's maximum; all 0 where nothing raised the score.
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
    maps = functional.interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    peak = maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(peak > 0, maps / peak.clamp_min(1e-12), torch.zeros_like(maps)).detach()
