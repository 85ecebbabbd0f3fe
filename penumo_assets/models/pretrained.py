"""Weights to start a training from: ImageNet's or somebody's file, fitted to one of our networks."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from penumo_assets.models.architectures import module_of
from penumo_assets.models.errors import ModelError
from penumo_assets.models.first_convolution import fit_first_convolution
from penumo_assets.models.inputs import default_normalisation
from penumo_assets.models.safetensors_header import refuse_huge_header

WEIGHTS_SUFFIX = ".safetensors"
OPERATING_POINTS = "op_threshs"  # what torchxrayvision keeps beside the weights: its thresholds
XRV_FINDINGS = 18


def imagenet_weights(architecture: str) -> dict[str, torch.Tensor]:
    """ImageNet weights from torchvision's server or the local cache.

    Raises
    ------
    ModelError
        If they cannot be fetched; the message says how to give weights without a network.
    """
    module = module_of(architecture)
    try:
        weights: dict[str, torch.Tensor] = module.imagenet_weights()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the ImageNet weights of {architecture} cannot be fetched ({type(error).__name__}: {error}). "
            "Without a network, put a torchvision state dict as .safetensors in storage and give its URI "
            "as pretrained, which becomes the training job's channel 'pretrained'; or train with pretrained=none."
        ) from error
    return weights


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a ``.safetensors`` file; pickles (``.pth``, ``.pt``, ``.bin``) are refused, whatever they hold.

    Raises
    ------
    ModelError
        If the file is of another kind, cannot be read, or holds no tensors.
    """
    if path.suffix != WEIGHTS_SUFFIX:
        raise ModelError(
            f"{path.name}: only {WEIGHTS_SUFFIX} is read, because a pickle can run code. Convert weights that you "
            "trust with safetensors.torch.save_file(torch.load(path, weights_only=True), 'weights.safetensors')"
        )
    try:
        refuse_huge_header(path)
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read as weights: {type(error).__name__}") from error
    if not weights:
        raise ModelError(f"{path.name} is not a state dict: a mapping of layer names to tensors")
    return weights


def load_pretrained(
    model: nn.Module, architecture: str, weights: Mapping[str, torch.Tensor], input_channels: int
) -> None:
    """Give ``model`` the ``weights``, except a last layer for other classes.

    Batch norm's count of batches, which files from before PyTorch 0.4.1 lack (torchvision's first generation), starts
    at 0: no answer depends on it.

    Raises
    ------
    ModelError
        If they are for another network.
    """
    own = model.state_dict()
    weights = {name: tensor for name, tensor in _bare(weights).items() if not name.startswith("fc.") or name in own}
    if "conv1.weight" not in weights or weights["conv1.weight"].ndim != 4:
        raise ModelError(f"the pretrained weights are not for {architecture}: they have no conv1.weight")
    weights = fit_first_convolution(weights, input_channels)
    for name in ("fc.weight", "fc.bias"):
        if name not in weights or weights[name].shape != own[name].shape:
            weights[name] = own[name]
    for name, tensor in own.items():
        if name.endswith(".num_batches_tracked"):
            weights.setdefault(name, tensor)
    wrong = [name for name, tensor in own.items() if name not in weights or weights[name].shape != tensor.shape]
    surplus = sorted(set(weights) - set(own))
    if wrong or surplus:
        example = (wrong + surplus)[0]
        raise ModelError(
            f"the pretrained weights are not for {architecture}: {len(wrong)} layers missing or of another shape, "
            f"{len(surplus)} unknown (for example {example})"
        )
    model.load_state_dict(weights)


def pretrained_normalisation(weights: Mapping[str, torch.Tensor] | None, input_channels: int) -> dict[str, list[float]]:
    """How ``weights`` want their input: torchxrayvision's from -1024 to 1024, all others by ImageNet's statistics.

    torchxrayvision's networks take one channel and answer for 18 findings, or bring ``op_threshs``.
    """
    normalisation = default_normalisation(input_channels)
    bare = _bare(weights or {})
    first, last = bare.get("conv1.weight"), bare.get("fc.weight")
    gray = first is not None and first.ndim == 4 and first.shape[1] == 1
    if gray and (OPERATING_POINTS in (weights or {}) or (last is not None and len(last) == XRV_FINDINGS)):
        normalisation["mean"][:3], normalisation["std"][:3] = [0.5] * 3, [1 / 2048] * 3
    return normalisation


def _bare(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Torchvision's names: without the prefixes of wrappers, of a contrastive pair only the encoder that learnt."""
    if any(name.startswith(f"{part}encoder_q.") for name in weights for part in ("", "module.")):
        weights = {name: tensor for name, tensor in weights.items() if "encoder_q." in name}
    bare = {}
    for name, tensor in weights.items():
        for prefix in ("module.", "model.", "encoder_q.", "backbone.0.", "backbone.", "encoder."):
            name = name.removeprefix(prefix)
        if name != OPERATING_POINTS:
            bare[name] = tensor
    return bare
