"""Grad-CAM in the evaluate job: over test images, held to lungs and boxes, and as a picture of each failure."""

import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from penumo_assets.imaging.boxes import drawn
from penumo_assets.jobs.shards import BOXES, IMAGE_SHAPE, Split
from penumo_assets.metrics.grad_cam import NoConvolution, grad_cam, inside
from penumo_assets.metrics.report.html import Picture
from penumo_assets.metrics.report.inputs import Explained
from penumo_assets.metrics.report.measured import Failure
from penumo_assets.metrics.report.pictures import jpeg_data_uri, with_contour, with_heat
from penumo_assets.models.inputs import normalise

MAX_EXPLAINED = 200

logger = logging.getLogger(__name__)


def explain(
    model: torch.nn.Module, metadata: dict[str, Any], test: Split, positive: int | None, batch_size: int
) -> Explained | None:
    """Grad-CAM of at most ``MAX_EXPLAINED`` test images, evenly chosen, for their own class, held to their lungs and to
    the boxes that readers drew.

    With a positive class, of the images that have it. None without such an image, or if the network has no convolution.
    """
    rows = np.arange(len(test)) if positive is None else np.flatnonzero(test.targets == positive)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_EXPLAINED)).round().astype(int))]
    device, parts, grid = next(model.parameters()).device, [], (0, 0)
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        images = test.gather(chosen)
        batch = normalise(torch.from_numpy(images).to(device), metadata)
        try:
            maps = grad_cam(model, batch, torch.from_numpy(test.targets[chosen]).to(device)).cpu().numpy()
        except NoConvolution:
            return None
        grid = maps.shape[1:]
        parts.append({"lungs": inside(maps, images[..., 3]), "boxes": inside(maps, boxes_of(test, chosen))})
    if not parts:
        return None
    found = {
        region: {name: np.concatenate([part[region][name] for part in parts]) for name in parts[0][region]}
        for region in parts[0]
    }
    return Explained(patients=test.index["patient_id"].to_numpy(str)[rows], grid=grid, **found)


def boxes_of(split: Split, rows: np.ndarray) -> np.ndarray:
    """(n, 224, 224) uint8: 255 in the boxes that readers drew on the images at index positions ``rows``."""
    texts = split.index[BOXES].iloc[rows] if BOXES in split.index else [None] * len(rows)
    return np.stack([drawn(json.loads(text) if isinstance(text, str) else (), IMAGE_SHAPE[0]) for text in texts])


def draw_failures(
    model: torch.nn.Module, metadata: dict[str, Any], test: Split, failures: Sequence[Failure]
) -> list[Picture | None]:
    """The image and the Grad-CAM overlay of each failure."""
    if not failures:
        return []
    images = test.gather(np.array([row.row for row in failures]))
    targets = torch.tensor([metadata["classes"].index(row.called) for row in failures])
    device = next(model.parameters()).device
    drawn = [with_contour(image) for image in images]
    try:
        batch = normalise(torch.from_numpy(images).to(device), metadata)
        heats = grad_cam(model, batch, targets.to(device)).cpu().numpy()
    except NoConvolution as error:
        logger.warning("no Grad-CAM: %s", error)
        return [Picture(jpeg_data_uri(image), None) for image in drawn]
    return [
        Picture(jpeg_data_uri(image), jpeg_data_uri(with_heat(image, heat)))
        for image, heat in zip(drawn, heats, strict=True)
    ]
