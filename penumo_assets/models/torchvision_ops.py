"""torchvision, importable even where its compiled operators do not load.

A torchvision built for CUDA cannot load its compiled library over a CPU build of torch, and then
``import torchvision`` stops at ``operator torchvision::nms does not exist``, although the models
and transforms are plain Python. When, and only when, the compiled library does not load, this
module declares the two operators whose *names* torchvision needs while it is imported. Calling one
of them still fails. On a matching pair of builds nothing is declared.

Use ``from penumo_assets.models.torchvision_ops import torchvision`` instead of importing it directly.
"""

import importlib.util
import logging
from pathlib import Path

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")
_declared: list[torch.library.Library] = []  # a declaration lives as long as its Library object

logger = logging.getLogger(__name__)


def compiled_library() -> Path | None:
    """torchvision's compiled operators, found without importing torchvision; None if it has none.

    Raises
    ------
    ImportError
        If torchvision is not installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("torchvision is not installed")
    folder = Path(spec.submodule_search_locations[0])
    return next((path for path in sorted(folder.glob("_C*")) if path.suffix in {".so", ".pyd"}), None)


def declare_missing_operators(library: Path | None, namespace: str = "torchvision") -> bool:
    """Load ``library``; if that cannot be done, declare the operators' schemas. True if declared."""
    if any(hasattr(getattr(torch.ops, namespace), name) for name in _OPERATORS):
        return False
    if library is not None:
        try:
            torch.ops.load_library(str(library))
            return False
        except OSError as error:
            logger.debug("torchvision's compiled operators do not load: %s", error)
    fragment = torch.library.Library(namespace, "FRAGMENT")
    for name in _OPERATORS:
        fragment.define(name + _SCHEMA)
    _declared.append(fragment)
    return True


declare_missing_operators(compiled_library())

import torchvision  # noqa: E402

__all__ = ["compiled_library", "declare_missing_operators", "torchvision"]
