"""The prepare job's mask stage: a batch of letterboxed images to lung masks."""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from penumo_assets.configs.prepare import SegmentConfig
from penumo_assets.imaging.decode import encode_png
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.film import look_at
from penumo_assets.imaging.formats.files import read_plain_file
from penumo_assets.imaging.lung_mask import find_lungs
from penumo_assets.imaging.segment import BackendUnavailable, open_segmenter
from penumo_assets.imaging.segment_looks import FilmLook
from penumo_assets.imaging.truth import MAX_BYTES, read_mask, unite
from penumo_assets.jobs.contract import JobError, processing_input
from penumo_assets.jobs.prepare.image import Image, guarded, store
from penumo_assets.metrics.segmentation import overlap

log = logging.getLogger("prepare")
UNREAD = "mask:"  # begins the note that names why a ground-truth mask was left out


class MaskStage:
    """The segmenter with its settings."""

    def __init__(self, config: SegmentConfig, weights: Path | None, threads: int) -> None:
        self.config = config
        try:
            self.segmenter = open_segmenter(config.backend, weights, threads)
        except BackendUnavailable as error:
            raise JobError(str(error)) from error

    def make(self, images: list[Image]) -> None:
        """Lung probabilities for a batch, then one mask per image."""
        squares = [image.square for image in images if image.square is not None]
        started = time.process_time()
        looks = look_at(squares, self.segmenter, self.config.seg_on_gray)
        each = (time.process_time() - started) / len(images)
        for image, look in zip(images, looks, strict=True):
            image.seconds["segment"] = each
            guarded(image, "masks", partial(self._mask, look=look))

    def _mask(self, image: Image, look: FilmLook) -> None:
        lungs = find_lungs(look, image.letterbox.content, self.config)
        lungs.refuse_implausible(self.config)
        facts: dict[str, Any] = {
            "area_fraction": round(lungs.assessment.area_fraction, 4),
            "left_fraction": round(lungs.assessment.left_fraction, 4),
            "right_fraction": round(lungs.assessment.right_fraction, 4),
        }
        if look.agreement is not None:
            facts["look_agreement"] = round(look.agreement, 4)
        if lungs.flags:
            facts["flags"] = list(lungs.flags)
        facts |= _against_truth(image, lungs.drawn)
        if lungs.problems:
            facts["fallback"] = ", ".join(lungs.problems)
        image.mask = lungs.mask
        store(image, "masks", f"{image.item.row.image_id}.png", encode_png(lungs.mask), facts)


def _against_truth(image: Image, mask: np.ndarray) -> dict[str, float]:
    """Dice and IoU against the ground-truth mask that landed with the image, if one did; else a note."""
    row = image.item.row
    row.notes = [note for note in row.notes if not note.startswith(UNREAD)]
    if not image.item.truths:
        return {}
    try:
        files = [processing_input("landing") / name for name in image.item.truths]
        truth = unite([read_mask(read_plain_file(file, MAX_BYTES)) for file in files])
        if truth.shape != (row.height, row.width):
            raise ImageRejected("size_mismatch", "the mask is not of its film's size.")
    except ImageRejected as rejection:
        row.notes.append(UNREAD + rejection.code)
        log.warning("the ground-truth mask of image %s is left out: %s", row.image_id, rejection.code)
        return {}
    agreement = overlap(image.letterbox.apply(truth.astype(np.uint8), nearest=True) > 0, mask > 0)
    if np.isnan(agreement.dice):
        return {}  # lungs too thin for the letterbox: there is nothing to agree on
    return {"dice": round(agreement.dice, 4), "iou": round(agreement.iou, 4)}
