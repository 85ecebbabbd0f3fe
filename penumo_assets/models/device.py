"""The device that a network runs on."""

import torch


def compute_device(name: str = "auto") -> torch.device:
    """A device by its name for torch; ``auto`` is a GPU where there is one, else the CPU.

    On a GPU, convolutions compute in float32 from then on, not in TF32, and add up in the same order every time: an
    image's answer does not depend on its batch, and a training that is repeated gives the same weights. This holds
    for the whole process. Speed: benchmarks/README.md.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return device
