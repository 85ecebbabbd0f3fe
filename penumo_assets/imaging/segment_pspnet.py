"""Lung probabilities from torchxrayvision's PSPNet, for those who have that package.

The package is not a dependency, and it downloads its weights when the model is first made. Its lungs end at
the heart's border, while the bundled U-Net's include the region behind the heart, so areas and Dice
of the two are not to be compared with each other.

Reference: Lian et al. 2021, ChestX-Det, arXiv:2104.10326; https://github.com/mlmed/torchxrayvision
"""

import hashlib

import numpy as np
import torch

from penumo_assets.imaging.segment import BackendUnavailable, check_batch, has_content
from penumo_assets.imaging.segment_engine import SIZE
from penumo_assets.imaging.segment_looks import Looks
from penumo_assets.models.device import compute_device

LUNGS = ("Left Lung", "Right Lung")


class PSPNetSegmenter:
    """The same interface as `LungSegmenter`: ``digest``, ``predict`` and ``look``.

    Raises
    ------
    BackendUnavailable
        If torchxrayvision is not installed.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        try:
            from torchxrayvision.baseline_models.chestx_det import PSPNet
        except ImportError as error:
            message = "segmenter 'pspnet' needs torchxrayvision: pip install torchxrayvision"
            raise BackendUnavailable(message) from error
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = compute_device()
        self.model = PSPNet().eval().to(self.device)
        self.channels = [list(self.model.targets).index(name) for name in LUNGS]
        self.digest = _state_digest(self.model)

    @torch.inference_mode()
    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Probability that a pixel is lung, shapes and errors as in `LungSegmenter.predict`."""
        check_batch(batch)
        result = np.zeros(batch.shape, np.float32)
        for index in (i for i, image in enumerate(batch) if has_content(image)):
            # torchxrayvision's normalisation: 0..255 becomes -1024..1024.
            pixels = torch.from_numpy(batch[index]).to(self.device, torch.float32) / 255 * 2048 - 1024
            logits = self.model(pixels[None, None])[0, self.channels]
            probability = logits.sigmoid().amax(0)[None, None]
            full = torch.nn.functional.interpolate(probability, size=(SIZE, SIZE), mode="bilinear")
            result[index] = torch.nan_to_num(full)[0, 0].cpu().numpy()
        return result

    def look(self, batch: np.ndarray) -> Looks:
        """The probabilities of `predict`; of agreement, inversion and rotation nothing is known."""
        return Looks.of(self.predict(batch))


def _state_digest(model: torch.nn.Module) -> str:
    """SHA-256 over the names and values of the model's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
