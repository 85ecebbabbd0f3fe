import numpy as np
import pytest
import torch
from torch import nn

from penumo_assets.metrics.grad_cam import NoConvolution, grad_cam, inside, last_convolutional_stage
from penumo_assets.models.classifier import build_classifier


class Quadrants(nn.Module):
    """Two feature maps (the image and its negative), pooled; class 1 counts the image, class 0 the negative."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        self.features.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.features(images).mean(dim=(2, 3))
        return torch.stack([pooled[:, 1], pooled[:, 0]], dim=1)


def test_the_map_is_the_one_that_the_formula_gives_by_hand():
    images = torch.zeros(1, 1, 4, 4)
    images[0, 0, :2, :2] = 2.0
    images[0, 0, 2:, 2:] = 1.0
    images[0, 0, :2, 2:] = -3.0
    found = grad_cam(Quadrants().eval(), images, torch.tensor([1]))
    expected = torch.relu(images[0, 0]) / 2.0
    torch.testing.assert_close(found[0], expected)
    against = grad_cam(Quadrants().eval(), images, torch.tensor([0]))
    torch.testing.assert_close(against[0], torch.relu(-images[0, 0]) / 3.0)


def test_an_image_that_raises_nothing_has_an_empty_map_and_no_nan():
    found = grad_cam(Quadrants().eval(), torch.full((1, 1, 4, 4), -1.0), torch.tensor([1]))
    assert torch.equal(found, torch.zeros(1, 4, 4))


def test_a_resnet_is_explained_at_its_last_stage_and_at_that_stages_resolution():
    model = build_classifier("resnet34", 2, 4).eval()
    assert last_convolutional_stage(model) is model.layer4
    images = torch.randn(2, 4, 64, 64)
    found = grad_cam(model, images, torch.tensor([0, 1]))
    assert found.shape == (2, 2, 2)
    assert found.min() >= 0
    assert found.max() <= 1


def test_explaining_leaves_no_gradients_and_no_hooks_behind_even_with_frozen_weights():
    model = Quadrants().eval()
    model.requires_grad_(False)
    images = torch.rand(1, 1, 4, 4)
    with torch.no_grad():
        grad_cam(model, images, torch.tensor([1]))
    assert images.grad is None
    assert model.features.weight.grad is None
    assert not model.features._forward_hooks


def test_each_image_is_explained_alone():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    ).eval()
    images, targets = torch.randn(3, 3, 16, 16), torch.tensor([0, 1, 1])
    together = grad_cam(model, images, targets)
    alone = torch.cat([grad_cam(model, images[i : i + 1], targets[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert together.amax(dim=(1, 2)).max() == 1.0


def test_a_network_without_convolutions_is_refused():
    with pytest.raises(NoConvolution, match="Linear has no convolution"):
        grad_cam(nn.Linear(4, 2), torch.zeros(1, 4), torch.tensor([0]))


def test_energy_and_pointing_game_by_hand():
    masks = np.zeros((4, 8, 8), np.uint8)
    masks[:3, :4, :4] = 255  # the upper left of four cells; the last image has no region
    maps = np.zeros((4, 2, 2), np.float32)
    maps[0] = maps[3] = [[0.6, 0.2], [0.2, 0.0]]
    maps[1] = [[0.1, 0.0], [0.0, 0.9]]  # a blob on the abdomen
    found = inside(maps, masks)
    np.testing.assert_allclose(found["energy"], [0.6, 0.1, np.nan, np.nan], atol=1e-6)
    np.testing.assert_array_equal(found["pointing"], [1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(found["even"], [0.25, 0.25, np.nan, np.nan])
