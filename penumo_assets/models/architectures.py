"""From the name of an architecture to the module that builds it.

`configs.train.Architecture` is the list. Each of its names is a module of this package with two functions:
``build(classes, input_channels)``, the untrained network, whose first convolution is called ``conv1`` and whose last
layer ``fc``; and ``imagenet_weights()``, a state dict.
"""

from importlib import import_module
from types import ModuleType

from penumo_assets.configs.train import Architecture
from penumo_assets.models.errors import ModelError


def module_of(architecture: str) -> ModuleType:
    """The module that builds ``architecture``.

    Raises
    ------
    ModelError
        If there is no such architecture; the message names those that there are.
    """
    if architecture not in list(Architecture):
        raise ModelError(f"unknown architecture {architecture!r}: choose one of {', '.join(Architecture)}")
    return import_module(f"{__package__}.{architecture}")
