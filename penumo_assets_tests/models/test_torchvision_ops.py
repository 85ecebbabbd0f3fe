"""torchvision is importable whether or not its compiled operators load."""

import pytest
import torch

from penumo_assets.models import torchvision_ops
from penumo_assets.models.torchvision_ops import compiled_library, declare_missing_operators, torchvision


def test_torchvision_is_imported_and_its_models_compute():
    model = torchvision.models.resnet18(weights=None, num_classes=3).eval()
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_the_compiled_library_is_found_without_importing_torchvision():
    library = compiled_library()
    assert library is None or library.parent.name == "torchvision"


def test_a_library_that_does_not_load_gets_its_operators_declared(tmp_path):
    broken = tmp_path / "_C.so"
    broken.write_bytes(b"not a library")
    assert declare_missing_operators(broken, namespace="penumo_test_broken")
    operator = torch.ops.penumo_test_broken.nms
    with pytest.raises(NotImplementedError):  # a name, not an implementation
        operator(torch.zeros(1, 4), torch.zeros(1), 0.5)


def test_a_missing_library_gets_its_operators_declared():
    assert declare_missing_operators(None, namespace="penumo_test_missing")
    assert hasattr(torch.ops.penumo_test_missing, "qnms")


def test_a_library_that_loads_is_left_alone(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(torchvision_ops.torch.ops, "load_library", loaded.append)
    library = tmp_path / "_C.so"
    assert not declare_missing_operators(library, namespace="penumo_test_whole")
    assert loaded == [str(library)]
    assert not hasattr(torch.ops.penumo_test_whole, "nms")


def test_operators_that_exist_are_not_declared_again():
    assert not declare_missing_operators(None)
