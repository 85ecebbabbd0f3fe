"""The two architectures are those of the literature, with a wider first layer."""

import pytest
import torch

from penumo_assets.configs.train import Architecture
from penumo_assets.models.classifier import build_classifier
from penumo_assets.models.errors import ModelError
from penumo_assets.models.first_convolution import fit_first_convolution
from penumo_assets.models.torchvision_ops import torchvision

PUBLISHED_WEIGHTS = {"resnet34": 21_797_672, "resnet50": 25_557_032}  # 1,000 classes, torchvision's model table


@pytest.mark.parametrize("architecture", PUBLISHED_WEIGHTS)
def test_with_three_channels_it_has_the_published_number_of_weights(architecture):
    model = build_classifier(architecture, 1000, 3)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED_WEIGHTS[architecture]


@pytest.mark.parametrize("architecture", PUBLISHED_WEIGHTS)
def test_a_fourth_channel_adds_only_first_layer_weights(architecture):
    three, four = build_classifier(architecture, 2, 3), build_classifier(architecture, 2, 4)
    assert four.conv1.weight.shape == (64, 4, 7, 7)
    difference = sum(p.numel() for p in four.parameters()) - sum(p.numel() for p in three.parameters())
    assert difference == 64 * 7 * 7


def test_pretrained_weights_answer_with_a_mask_as_they_did_without():
    reference = torchvision.models.resnet34(weights=None, num_classes=2).eval()
    model = build_classifier("resnet34", 2, 4, reference.state_dict()).eval()
    images = torch.rand(2, 3, 64, 64)
    for mask in (torch.zeros(2, 1, 64, 64), torch.rand(2, 1, 64, 64)):
        torch.testing.assert_close(model(torch.cat([images, mask], dim=1)), reference(images))


def test_the_mask_is_learnt_although_its_weights_start_at_zero():
    reference = torchvision.models.resnet34(weights=None, num_classes=2)
    model = build_classifier("resnet34", 2, 4, reference.state_dict())
    model(torch.rand(2, 4, 64, 64)).square().sum().backward()
    assert model.conv1.weight.grad[:, 3].abs().sum() > 0


def test_a_gray_first_layer_answers_the_same_to_replicated_gray():
    gray = torch.rand(64, 1, 7, 7)
    fitted = fit_first_convolution({"conv1.weight": gray}, 4)["conv1.weight"]
    image = torch.rand(1, 1, 32, 32)
    wide = torch.cat([image.repeat(1, 3, 1, 1), torch.rand(1, 1, 32, 32)], dim=1)
    torch.testing.assert_close(torch.conv2d(wide, fitted), torch.conv2d(image, gray))


@pytest.mark.parametrize("architecture", Architecture)
def test_every_listed_architecture_is_a_module_that_builds_and_answers(architecture):
    assert build_classifier(architecture, 3, 4).eval()(torch.rand(2, 4, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("architecture", PUBLISHED_WEIGHTS)
def test_weights_of_torchvisions_first_generation_are_taken(architecture):
    # They were saved before batch norm counted batches: 267 of ResNet50's 320 entries.
    torch.manual_seed(1)
    own = getattr(torchvision.models, architecture)(weights=None, num_classes=1000)
    old = {name: tensor for name, tensor in own.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(own.state_dict())
    model = build_classifier(architecture, 1000, 3, old)
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model.eval()(images), own.eval()(images))
    with pytest.raises(ModelError, match="1 layers missing"):
        build_classifier(architecture, 2, 3, {n: t for n, t in old.items() if n != "layer1.0.bn1.running_var"})


def test_a_last_layer_for_other_classes_is_left_as_initialised():
    weights = torchvision.models.resnet34(weights=None, num_classes=1000).state_dict()
    model = build_classifier("resnet34", 2, 4, weights)
    assert model.fc.weight.shape == (2, 512)
    torch.testing.assert_close(model.layer1[0].conv1.weight, weights["layer1.0.conv1.weight"])
