"""ResNet50 (He et al. 2016, https://arxiv.org/abs/1512.03385): bottleneck blocks, 24 million weights."""

from torch import nn

from penumo_assets.models.first_convolution import widen_first_convolution
from penumo_assets.models.torchvision_ops import torchvision


def build(classes: int, input_channels: int) -> nn.Module:
    """Untrained ResNet50: (N, input_channels, H, W) float -> (N, classes) logits."""
    model = torchvision.models.resnet50(weights=None, num_classes=classes, zero_init_residual=True)
    return widen_first_convolution(model, input_channels)


def imagenet_weights() -> dict:
    """torchvision's ImageNet weights, downloaded or from torch.hub's cache."""
    return torchvision.models.ResNet50_Weights.IMAGENET1K_V2.get_state_dict(
        progress=False, check_hash=True, weights_only=True
    )
