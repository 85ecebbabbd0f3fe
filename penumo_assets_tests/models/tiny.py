"""A network of three thousand weights in the place of a ResNet, for tests of everything around it."""

from collections.abc import Iterable

import torch
from torch import nn

from penumo_assets.models.architectures import module_of


class TinyNetwork(nn.Module):
    """(N, C, H, W) -> (N, classes); named like a ResNet: conv1, bn1, layer4, fc."""

    def __init__(self, classes: int, input_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_channels, 8, 7, stride=4, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer4 = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.fc = nn.Linear(16, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layer4(self.bn1(self.conv1(images)).relu()).mean(dim=(2, 3)))


def use_tiny_networks(setattr=setattr, names: Iterable[str] = ("resnet34",)) -> None:
    """Make ``build_classifier(name, ...)`` build a ``TinyNetwork`` (pass ``monkeypatch.setattr`` in tests)."""
    for name in names:
        setattr(module_of(name), "build", TinyNetwork)
