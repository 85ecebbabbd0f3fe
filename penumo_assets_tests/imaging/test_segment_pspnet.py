"""The optional PSPNet backend: its interface, and its absence."""

import sys
import types

import numpy as np
import pytest
import torch

from penumo_assets.configs.prepare import SegmentConfig, SegmenterBackend
from penumo_assets.imaging.segment import BackendUnavailable, LungSegmenter, open_segmenter
from penumo_assets.imaging.segment_pspnet import PSPNetSegmenter
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.prepare.masks import MaskStage


class FakePSPNet(torch.nn.Module):
    """Stands for torchxrayvision's model: its targets, its input range, (N, targets, 512, 512) logits."""

    targets = ("Heart", "Left Lung", "Aorta", "Right Lung")

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert -1024 <= x.min() < -900
        assert 900 < x.max() <= 1024
        logits = torch.full((1, 4, 512, 512), -9.0)
        logits[:, 0] = 9  # the heart is everywhere, and must not count
        logits[:, 1, :, 300:] = 9
        logits[:, 3, :, :200] = 9
        return logits


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torchxrayvision.baseline_models.chestx_det")
    module.PSPNet = FakePSPNet
    for name in ("torchxrayvision", "torchxrayvision.baseline_models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_both_lungs_and_nothing_else_become_lung(installed: None) -> None:
    image = np.tile(np.linspace(0, 255, 512).astype(np.uint8), (512, 1))
    image[::2] = 255 - image[::2]
    probability = PSPNetSegmenter().predict(np.stack([image, np.zeros_like(image)]))
    assert probability.dtype == np.float32
    assert (probability[0, :, 300:] > 0.99).all()
    assert (probability[0, :, :200] > 0.99).all()
    assert (probability[0, :, 201:299] < 0.01).all()
    assert not probability[1].any()


def test_the_digest_follows_the_weights(installed: None) -> None:
    assert PSPNetSegmenter().digest == PSPNetSegmenter().digest
    assert len(PSPNetSegmenter().digest) == 64


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    with pytest.raises(BackendUnavailable, match="pip install torchxrayvision"):
        PSPNetSegmenter()


def test_the_configuration_chooses_the_backend(installed: None) -> None:
    assert isinstance(open_segmenter(SegmentConfig().backend), LungSegmenter)
    assert isinstance(open_segmenter(SegmenterBackend.pspnet), PSPNetSegmenter)


def test_a_job_without_the_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    with pytest.raises(JobError, match="'pspnet' needs torchxrayvision"):
        MaskStage(SegmentConfig(backend=SegmenterBackend.pspnet), None, 1)
