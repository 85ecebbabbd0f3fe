"""The lung U-Net by ONNX Runtime and by torch: the same masks, alone and in a batch; and which of them is taken."""

import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from penumo_assets.imaging import segment_engine, segment_torch
from penumo_assets.imaging.segment_engine import LOOKS, OnnxEngine, Seen, open_engine
from penumo_assets.imaging.segment_torch import TorchEngine, area_shares
from penumo_assets.imaging.segment_weights import BUNDLED, Tensors, read_weights
from penumo_assets.models import lung_unet, lung_unet_arrays
from penumo_assets.phantoms import draw_phantom


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return read_weights(BUNDLED)[0]


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    """(6, 512, 512) uint8: four films, one of them between bars; one inverted, one on its side."""
    drawn = [(draw_phantom(seed, height=512, width=512)[0] >> 4).astype(np.uint8) for seed in range(4)]
    drawn[1][:, :60] = 0
    return np.stack([*drawn, 255 - drawn[0], np.rot90(drawn[2])])


def masks(seen: Seen) -> np.ndarray:
    return seen.probabilities > 0.5


@pytest.fixture(scope="module")
def by_torch(tensors: Tensors, films: np.ndarray) -> Seen:
    return TorchEngine(tensors, "cpu", 1).see(films)


def test_onnx_runtime_sees_what_torch_sees(tensors: Tensors, films: np.ndarray, by_torch: Seen) -> None:
    seen = OnnxEngine(tensors, 1).see(films)
    assert by_torch.negative.tolist() == [False, False, False, False, True, by_torch.negative[5]]
    np.testing.assert_array_equal(seen.negative, by_torch.negative)
    for name in ("probabilities", "first", "second", "deepest"):
        ours, theirs = getattr(seen, name), getattr(by_torch, name)
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-4, err_msg=name)
    assert masks(by_torch)[:4].mean((1, 2)).min() > 0.1, "there are lungs to agree on"
    assert np.mean(masks(seen) != masks(by_torch)) <= 1e-5


@pytest.mark.parametrize("least", [1, 8], ids=["as on a CPU", "in whole batches, as on a GPU"])
def test_a_film_gets_the_same_mask_alone_and_in_a_batch(
    least: int, tensors: Tensors, films: np.ndarray, by_torch: Seen
) -> None:
    engine = TorchEngine(tensors, "cpu", 1)
    engine.least = least
    for number, film in enumerate(films):
        alone = engine.see(film[None])
        assert {len(part) for part in vars(alone).values()} == {1}
        np.testing.assert_allclose(alone.probabilities[0], by_torch.probabilities[number], atol=1e-4)
        assert np.mean(masks(alone)[0] != masks(by_torch)[number]) <= 1e-5
        assert alone.negative[0] == by_torch.negative[number]


@pytest.mark.parametrize("side", LOOKS)
def test_torch_reduces_a_film_to_the_bytes_that_opencv_makes(side: int, films: np.ndarray) -> None:
    shares = area_shares(side)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    reduced = (shares @ torch.from_numpy(films).float() @ shares.T).round_().numpy()
    expected = [cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA) for film in films]
    assert np.abs(reduced - np.stack(expected)).max() <= 1
    assert np.mean(reduced != np.stack(expected)) < 1e-4


@pytest.mark.parametrize(
    "draw", [lambda film: film, lambda film: film // 8 + 90, np.zeros_like, lambda film: 255 - film]
)
def test_the_arithmetic_without_torch_is_that_with_it(draw: Callable, films: np.ndarray) -> None:
    for film in films:
        small = cv2.resize(draw(film), (192, 192), interpolation=cv2.INTER_AREA)
        ours = lung_unet_arrays.standardise(small)
        theirs = lung_unet.standardise(torch.from_numpy(small[None, None]).float())
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs[0, 0], atol=2e-4)
        logits = cv2.resize(ours, (96, 96), interpolation=cv2.INTER_AREA) * -1  # what is dark is taken for lung
        for each in (logits, -logits, np.full_like(logits, -1), np.full_like(logits, 1)):
            expected = lung_unet.is_negative(theirs, torch.from_numpy(each[None, None]))
            assert lung_unet_arrays.is_negative(ours, each) == bool(expected)


@pytest.mark.parametrize(
    ("absent", "gpu_shown", "gpu_usable", "expected"),
    [
        ((), False, False, "onnx"),
        ((), True, False, "onnx"),
        ((), True, True, "torch on cuda"),
        (("torch",), True, False, "onnx"),
        (("onnxruntime",), False, False, "torch on cpu"),
        (("onnxruntime",), False, True, "torch on cuda"),
    ],
)
def test_the_engine_is_chosen_by_what_is_here(
    absent: tuple[str, ...], gpu_shown: bool, gpu_usable: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_engine, "find_spec", lambda name: None if name in absent else name)
    monkeypatch.setattr(segment_engine, "_may_have_gpu", lambda: gpu_shown)
    monkeypatch.setattr(segment_engine, "OnnxEngine", lambda *_: "onnx")
    monkeypatch.setattr(segment_torch, "TorchEngine", lambda _, device, *__: f"torch on {device}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu_usable)
    assert open_engine({}) == expected


def test_masks_are_made_without_loading_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "from penumo_assets.imaging.segment_engine import OnnxEngine\n"
        "from penumo_assets.imaging.segment_weights import BUNDLED, read_weights\n"
        "import penumo_assets.jobs.prepare.stages\n"
        "film = np.arange(512 * 512, dtype=np.uint8).reshape(1, 512, 512)\n"
        "print(OnnxEngine(read_weights(BUNDLED)[0], 1).see(film).probabilities.shape, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 512, 512) False\n"
