"""ResNet34 (He et al. 2016, https://arxiv.org/abs/1512.03385): 21 million weights, the quicker one."""

from torch import nn

from penumo_assets.models.first_convolution import widen_first_convolution
from penumo_assets.models.torchvision_ops import torchvision


def build(classes: int, input_channels: int) -> nn.Module:
    """Untrained ResNet34: (N, input_channels, H, W) float -> (N, classes) logits."""
    model = torchvision.models.resnet34(weights=None, num_classes=classes, zero_init_residual=True)
    return widen_first_convolution(model, input_channels)


def imagenet_weights() -> dict:
    """torchvision's ImageNet weights, downloaded or from torch.hub's cache."""
    return torchvision.models.ResNet34_Weights.IMAGENET1K_V1.get_state_dict(
        progress=False, check_hash=True, weights_only=True
    )
