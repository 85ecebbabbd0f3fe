"""The prepare job's mask stage: a batch of letterboxed images to lung masks. Importing this loads torch."""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from penumo_assets.configs.prepare import DecodeConfig, OnBadMask, SegmentConfig
from penumo_assets.imaging.decode import encode_png
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.files import read_plain_file
from penumo_assets.imaging.formats.png import decode_gray_png
from penumo_assets.imaging.segment import assess_mask, clean_mask, segmentable
from penumo_assets.imaging.segment_pspnet import BackendUnavailable, open_segmenter
from penumo_assets.jobs.contract import JobError, processing_input
from penumo_assets.jobs.prepare.image import Image, guarded, store
from penumo_assets.metrics.segmentation import overlap

log = logging.getLogger("prepare")
MASK_CONFIG = DecodeConfig.parse({"min_side": 1, "reduce_to": None, "keep_colour": False})


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
        planes = [segmentable(image.square, self.config.seg_on_gray) for image in images if image.square is not None]
        started = time.process_time()
        flat = self.segmenter.predict(np.concatenate(planes))
        each = (time.process_time() - started) / len(images)
        start = 0
        for image, plane in zip(images, planes, strict=True):
            image.seconds["segment"] = each
            probability = flat[start : start + len(plane)].mean(axis=0)
            start += len(plane)
            guarded(image, "masks", partial(self._mask, probability=probability))

    def _mask(self, image: Image, probability: np.ndarray) -> None:
        content = image.letterbox.content
        mask = clean_mask(probability, content, self.config.threshold)
        assessment = assess_mask(mask, content, self.config.plausibility)
        facts: dict[str, Any] = {
            "area_fraction": round(assessment.area_fraction, 4),
            "left_fraction": round(assessment.left_fraction, 4),
            "right_fraction": round(assessment.right_fraction, 4),
        }
        facts |= _against_truth(image, mask)
        if assessment.problems:
            problems = ", ".join(assessment.problems)
            if self.config.on_bad_mask is OnBadMask.reject:
                raise ImageRejected("implausible_mask", f"the lung mask is not plausible: {problems}")
            facts["fallback"] = problems
            mask = np.zeros_like(mask)
            mask[content] = 255
        image.mask = mask
        store(image, "masks", f"{image.item.row.image_id}.png", encode_png(mask), facts)


def _against_truth(image: Image, mask: np.ndarray) -> dict[str, float]:
    """Dice and IoU against the ground-truth mask that landed with the image, if one did."""
    if image.item.truth is None:
        return {}
    try:
        data = read_plain_file(processing_input("landing") / image.item.truth, MASK_CONFIG.max_file_bytes)
        truth = decode_gray_png(data, MASK_CONFIG)
    except ImageRejected as rejection:
        log.warning("the ground-truth mask of image %s is left out: %s", image.item.row.image_id, rejection.code)
        return {}
    if truth.shape != (image.item.row.height, image.item.row.width):
        log.warning("the ground-truth mask of image %s does not fit it and is left out", image.item.row.image_id)
        return {}
    truth = image.letterbox.apply(truth, nearest=True)
    agreement = overlap(truth > 127, mask > 0)
    if np.isnan(agreement.dice):
        return {}  # both are empty: there is nothing to agree on
    return {"dice": round(agreement.dice, 4), "iou": round(agreement.iou, 4)}
