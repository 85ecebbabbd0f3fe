"""What runs the lung U-Net: ONNX Runtime on a CPU, torch on a GPU and where only torch is installed.

Both take the same two looks in the same order, and the tests hold them equal. ONNX Runtime is ready in a tenth of a
second instead of three, in half the memory, and takes 14 ms a film instead of 17 to 22 (benchmarks/segmentation.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from penumo_assets.imaging.segment_weights import Tensors
from penumo_assets.models.lung_unet_arrays import is_negative, standardise
from penumo_assets.models.lung_unet_onnx import DEEPEST, INPUT, LOGITS, onnx_model

SIZE = 512
BATCH = 8  # films that are looked at together
LOOKS = (192, 224)  # sides in pixels; the mean of two looks outlines better than either (docs/model_card_lung_unet.md)
EXTREME = 30.0  # logit: finite weights can still overflow, and undefined counts as not lung


@dataclass(frozen=True)
class Seen:
    """What the network sees on N films.

    Attributes
    ----------
    probabilities : ndarray
        (N, 512, 512) float32.
    first, second : ndarray
        (N, 112, 112) float32 logits of the two looks.
    deepest : ndarray
        (N, C, 6, 6) float32 features of the first look.
    negative : ndarray
        (N,) bool: whether the film is inverted.
    """

    probabilities: np.ndarray
    first: np.ndarray
    second: np.ndarray
    deepest: np.ndarray
    negative: np.ndarray

    @classmethod
    def of(cls, films: Iterable[tuple[Any, ...]]) -> "Seen":
        """The fields of single films, in order, stacked."""
        return cls(*map(np.stack, zip(*films, strict=True)))


class Engine(Protocol):
    """The network with its weights."""

    def see(self, images: np.ndarray) -> Seen:
        """Two looks at (N, 512, 512) uint8 films, N at least 1, none of them constant."""


def open_engine(tensors: Tensors, threads: int | None = None) -> Engine:
    """The quickest engine that is here, on ``threads`` threads of a CPU."""
    onnx, with_torch = (find_spec(name) is not None for name in ("onnxruntime", "torch"))
    if onnx and not (with_torch and _may_have_gpu()):
        return OnnxEngine(tensors, threads)
    import torch

    from penumo_assets.imaging.segment_torch import TorchEngine

    if torch.cuda.is_available():
        return TorchEngine(tensors, "cuda")
    return OnnxEngine(tensors, threads) if onnx else TorchEngine(tensors, "cpu", threads)


def _may_have_gpu() -> bool:
    """Whether the system shows a device of NVIDIA's driver; torch knows whether it can be used, but takes seconds."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


class OnnxEngine:
    """By ONNX Runtime on a CPU, one film after the other, which is as fast as several at once."""

    def __init__(self, tensors: Tensors, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        # Threads that wait must not spin: on a shared machine they would take the cores from those that work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(onnx_model(tensors), options, providers=["CPUExecutionProvider"])

    def see(self, images: np.ndarray) -> Seen:
        return Seen.of(map(self._look_twice, images))

    def _look_twice(self, image: np.ndarray) -> tuple[Any, ...]:
        coarse, fine = (standardise(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)) for side in LOOKS)
        first, deepest = self._run(coarse)
        negative = is_negative(coarse, first)
        if negative:
            first, deepest = self._run(-coarse)
            fine = -fine
        second = np.ascontiguousarray(self._run(fine[:, ::-1])[0][:, ::-1])
        first = cv2.resize(first, second.shape[::-1], interpolation=cv2.INTER_LINEAR)
        logits = np.nan_to_num((first + second) / 2, nan=-EXTREME, posinf=EXTREME, neginf=-EXTREME)
        large = cv2.resize(logits, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        return 1 / (1 + cv2.exp(-large)), first, second, deepest, negative

    def _run(self, standard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, deepest = self.session.run([LOGITS, DEEPEST], {INPUT: np.ascontiguousarray(standard[None, None])})
        return logits[0, 0], deepest[0]
