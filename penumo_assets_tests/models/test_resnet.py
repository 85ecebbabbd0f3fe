"""The two architectures are those of the literature, with a wider first layer."""

import pytest
import torch

from penumo_assets.configs.train import Architecture
from penumo_assets.models.classifier import build_classifier
from penumo_assets.models.errors import ModelError
from penumo_assets.models.first_convolution import fit_first_convolution
from penumo_assets.models.inputs import default_normalisation, normalise
from penumo_assets.models.pretrained import pretrained_normalisation
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


def timm_weights(architecture: str, channels: int) -> dict[str, torch.Tensor]:
    """Random weights by the names and shapes that timm's ResNet (7x7 stem) gives to its layers, with 1000 classes."""
    wide = architecture == "resnet50"
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, channels, 7, 7)}
    norms, before = {"bn1": 64}, 64
    for layer, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), start=1):
        for block in range(blocks):
            name, after = f"layer{layer}.{block}", width * (4 if wide else 1)
            kernels = [(before, width, 1), (width, width, 3), (width, after, 1)] if wide else [
                (before, width, 3), (width, width, 3)
            ]  # fmt: skip
            for number, (source, target, kernel) in enumerate(kernels, start=1):
                shapes[f"{name}.conv{number}.weight"] = (target, source, kernel, kernel)
                norms[f"{name}.bn{number}"] = target
            if before != after:
                shapes[f"{name}.downsample.0.weight"] = (after, before, 1, 1)
                norms[f"{name}.downsample.1"] = after
            before = after
    shapes |= {"fc.weight": (1000, before), "fc.bias": (1000,)}
    weights = {name: 0.05 * torch.randn(shape) for name, shape in shapes.items()}
    for name, width in norms.items():
        weights |= {f"{name}.{part}": torch.rand(width) for part in ("weight", "bias", "running_mean", "running_var")}
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return weights


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", PUBLISHED_WEIGHTS)
def test_weights_of_timm_are_taken_but_for_the_last_layer(architecture: str, channels: int) -> None:
    torch.manual_seed(0)
    weights = timm_weights(architecture, channels)
    with_three = PUBLISHED_WEIGHTS[architecture] - (3 - channels) * 64 * 49
    learnt = {name for name in weights if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert sum(weights[name].numel() for name in learnt) == with_three
    own = build_classifier(architecture, 2, 4, weights).state_dict()
    for name, tensor in weights.items():
        if name.startswith("layer") or name.startswith("bn1"):
            torch.testing.assert_close(own[name], tensor)
    assert own["fc.weight"].shape[0] == 2
    torch.testing.assert_close(own["conv1.weight"][:, :3].sum(1), weights["conv1.weight"].sum(1))
    assert not own["conv1.weight"][:, 3].any()  # the mask starts without effect


def test_timms_variants_with_another_stem_are_refused_by_name() -> None:
    weights = timm_weights("resnet34", 3)
    stem = {f"conv1.{n}.weight": torch.zeros(32, 3, 3, 3) for n in (0, 3, 6)}
    with pytest.raises(ModelError, match=r"not for resnet34: they have no conv1\.weight"):
        build_classifier("resnet34", 2, 4, {n: t for n, t in weights.items() if n != "conv1.weight"} | stem)


def chest_weights() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A network of torchxrayvision's shape (one channel, 18 findings) and its state dict."""
    network = torchvision.models.resnet50(weights=None, num_classes=18)
    network.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    return network.eval(), network.state_dict() | {"op_threshs": torch.full((18,), 0.5)}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "encoder_q.", "backbone.0.", "module.encoder_q."])
def test_chest_weights_answer_as_they_did_on_their_own_scale(prefix):
    network, state = chest_weights()
    state = {name if name == "op_threshs" else f"{prefix}{name}": tensor for name, tensor in state.items()}
    if "encoder_q" in prefix:  # a contrastive pair: its other encoder and its queue are not needed
        state |= {"module.encoder_k.conv1.weight": torch.zeros(1), "queue": torch.zeros(2)}
    film = torch.randint(0, 256, (2, 224, 224, 1), dtype=torch.uint8)
    mask = torch.randint(0, 256, (2, 224, 224, 1), dtype=torch.uint8)
    normalisation = pretrained_normalisation(state, 4)
    model = build_classifier("resnet50", 18, 4, state).eval()
    theirs = network((film.permute(0, 3, 1, 2).float() / 255 * 2 - 1) * 1024)
    metadata = {"input_channels": 4, "image_size": 224, "normalisation": normalisation}
    ours = model(normalise(torch.cat([film, film, film, mask], dim=3), metadata))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_a_contrastive_head_is_left_out_and_other_weights_keep_imagenets_scale():
    state = torchvision.models.resnet34(weights=None).state_dict()
    state = {f"encoder_q.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
    state |= {"encoder_q.fc.0.weight": torch.zeros(4, 4), "encoder_q.fc.2.weight": torch.zeros(4, 4)}
    model = build_classifier("resnet34", 2, 4, state)
    torch.testing.assert_close(model.layer1[0].conv1.weight, state["encoder_q.layer1.0.conv1.weight"])
    assert pretrained_normalisation(state, 4) == pretrained_normalisation(None, 4) == default_normalisation(4)


def test_a_last_layer_for_other_classes_is_left_as_initialised():
    weights = torchvision.models.resnet34(weights=None, num_classes=1000).state_dict()
    model = build_classifier("resnet34", 2, 4, weights)
    assert model.fc.weight.shape == (2, 512)
    torch.testing.assert_close(model.layer1[0].conv1.weight, weights["layer1.0.conv1.weight"])
