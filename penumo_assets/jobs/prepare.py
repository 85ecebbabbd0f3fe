"""Prepare a cohort in one pass: decode, letterbox, segment, enhance, pack.

Every image is decoded once and every intermediate written once. Images stream through: a bounded number
is in memory at any time, whatever the size of the cohort. A bad image becomes a rejected row; the rest goes on.

Inputs: ``work`` (config.json, work.jsonl), ``landing`` (images, ground-truth masks), ``weights`` (optional
lung segmenter), and stored outputs ``raw``, ``masks``, ``preprocessed`` of images that start half-way.
Outputs: ``raw``, ``masks``, ``preprocessed``, ``npz`` and ``rows`` (rows-{host}.jsonl, result.json).
"""

import argparse
import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from penumo_assets.configs.prepare import Deidentify, OnBadMask, PrepareConfig
from penumo_assets.imaging.decode import DecodedImage, decode_image, decode_png, encode_png
from penumo_assets.imaging.deidentify import is_safe_id, pseudonym
from penumo_assets.imaging.dicom_header import view_code
from penumo_assets.imaging.enhance import enhance, fit_mask
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.letterbox import Letterbox
from penumo_assets.imaging.pack import npz_bytes, pack_tensor
from penumo_assets.imaging.segment import LungSegmenter, assess_mask, clean_mask, segmentable
from penumo_assets.jobs.contract import (
    JobError,
    hosts,
    processing_input,
    processing_output,
    run_program,
    write_atomic,
    write_result,
)
from penumo_assets.jobs.manifest import STAGES, StageOutput, dump_rows
from penumo_assets.jobs.work import KEY_VARIABLE, WorkItem, load_work
from penumo_assets.metrics.segmentation import overlap

LETTERBOX_SIZE = 512
log = logging.getLogger("prepare")
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Image:
    """One image on its way: its work item and the arrays that the next stage needs."""

    item: WorkItem
    pixels: np.ndarray | None = None
    square: np.ndarray | None = None
    mask: np.ndarray | None = None
    enhanced: np.ndarray | None = None
    small_mask: np.ndarray | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def wants(self) -> list[str]:
        """Stages still to compute; none once the image is rejected."""
        return [] if self.item.row.status == "rejected" else self.item.compute

    @property
    def letterbox(self) -> Letterbox:
        assert self.item.row.height
        assert self.item.row.width
        return Letterbox.fit(self.item.row.height, self.item.row.width, LETTERBOX_SIZE)


class Preparer:
    """The stages, with what they share: settings, key and segmenter."""

    def __init__(self, config: PrepareConfig, key: bytes | None, segmenter: LungSegmenter | None) -> None:
        self.config = config
        self.key = key
        self.segmenter = segmenter

    def load(self, item: WorkItem) -> Image:
        """Decode the landed file, or read back what the first stage to compute needs."""
        image = Image(item)
        row = item.row
        if row.status == "rejected" and row.stage in item.compute:
            row.status, row.stage, row.code, row.reason, row.attempted = "accepted", None, None, None, {}
        if "raw" in item.compute:
            self._guarded(image, "raw", self._decode)
        wants = set(image.wants)
        if wants & {"masks", "preprocessed"} and "raw" not in wants:
            image.pixels = decode_png(_stored("raw", item))
        if wants & {"preprocessed", "npz"} and "masks" not in wants:
            image.mask = decode_png(_stored("masks", item))
        if "npz" in wants and "preprocessed" not in wants:
            image.enhanced = decode_png(_stored("preprocessed", item))
        if image.pixels is not None and wants & {"masks", "preprocessed"}:
            image.square = image.letterbox.apply(image.pixels)
        return image

    def segment(self, images: list[Image]) -> None:
        """Lung probabilities for a batch, then one mask per image."""
        chosen = [image for image in images if "masks" in image.wants]
        if not chosen:
            return
        assert self.segmenter is not None
        on_gray = self.config.segment.seg_on_gray
        planes = [segmentable(image.square, on_gray) for image in chosen if image.square is not None]
        started = time.perf_counter()
        flat = self.segmenter.predict(np.concatenate(planes))
        each = (time.perf_counter() - started) / len(chosen)
        start = 0
        for image, plane in zip(chosen, planes, strict=True):
            image.seconds["segment"] = each
            probability = flat[start : start + len(plane)].mean(axis=0)
            start += len(plane)
            self._guarded(image, "masks", partial(self._mask, probability=probability))

    def finish(self, image: Image) -> Image:
        """Enhance and pack."""
        if "preprocessed" in image.wants:
            self._guarded(image, "preprocessed", self._enhance)
        if "npz" in image.wants:
            self._guarded(image, "npz", self._pack)
        image.pixels = image.square = image.mask = image.enhanced = image.small_mask = None
        return image

    def _guarded(self, image: Image, stage: str, step: Callable[[Image], None]) -> None:
        """Run one stage of one image: whatever is wrong with it becomes its row's reason."""
        row, started = image.item.row, time.perf_counter()
        try:
            step(image)
        except ImageRejected as rejection:
            row.reject(stage, rejection.code, rejection.reason, image.item.fingerprints[stage])
        except (JobError, OSError):
            raise  # not this image's fault: the settings, the disk
        except Exception as error:
            # Without a fingerprint the next materialization tries again.
            row.reject(stage, "unexpected_error", f"{type(error).__name__} in stage {stage}")
            log.exception("unexpected error in stage %s of image %s", stage, row.image_id)
        if row.status == "rejected":
            for later in STAGES[STAGES.index(stage) :]:
                row.stages.pop(later, None)
        image.seconds[stage] = image.seconds.get(stage, 0.0) + time.perf_counter() - started

    def _decode(self, image: Image) -> None:
        item, row = image.item, image.item.row
        data = (processing_input("landing") / row.source).read_bytes()
        row.source_sha256 = hashlib.sha256(data).hexdigest()
        if self.config.decode.reject_lateral and view_code(row.view or "") == "LATERAL":
            raise ImageRejected("lateral_view", f"labels.csv says the view is {row.view}")
        decoded = decode_image(data, self.config.decode)
        row.patient_id = self._patient(item, decoded)
        row.height, row.width = decoded.pixels.shape[:2]
        row.format, row.notes = decoded.format, list(decoded.notes)
        tags = decoded.tags
        row.tags = {"view": tags.view, "sex": tags.sex, "age": tags.age, "modality": tags.modality}
        row.tags |= {"pixel_spacing_mm": tags.pixel_spacing_mm, "burned_in": tags.burned_in, "bits": decoded.bits}
        row.tags = {name: value for name, value in row.tags.items() if value is not None}
        row.view, row.sex = row.view or tags.view, row.sex or tags.sex
        row.age = row.age if row.age is not None else tags.age
        row.mean_intensity = round(float(decoded.pixels.mean()) / np.iinfo(decoded.pixels.dtype).max, 6)
        image.pixels = decoded.pixels
        _store(image, "raw", f"{row.image_id}.png", encode_png(decoded.pixels))

    def _patient(self, item: WorkItem, decoded: DecodedImage) -> str:
        raw_id = item.label_patient_id or decoded.patient_id or item.row.image_id
        mode = self.config.decode.deidentify
        if mode is Deidentify.always or (mode is Deidentify.dicom and decoded.format == "dicom"):
            if self.key is None:
                raise JobError(
                    f"patient ids must be pseudonymised, but {KEY_VARIABLE} is not set: set it to a secret of at least "
                    "16 bytes and keep it, or set decode.deidentify to never"
                )
            return pseudonym(raw_id, self.key)
        if not is_safe_id(raw_id):
            raise ImageRejected("unsafe_patient_id", "the patient id has characters other than A-Z a-z 0-9 . _ -")
        return raw_id

    def _mask(self, image: Image, probability: np.ndarray) -> None:
        content = image.letterbox.content
        segment = self.config.segment
        mask = clean_mask(probability, content, segment.threshold)
        assessment = assess_mask(mask, content, segment.plausibility)
        facts: dict[str, Any] = {
            "area_fraction": round(assessment.area_fraction, 4),
            "left_fraction": round(assessment.left_fraction, 4),
            "right_fraction": round(assessment.right_fraction, 4),
        }
        facts |= self._against_truth(image, mask)
        if assessment.problems:
            problems = ", ".join(assessment.problems)
            if segment.on_bad_mask is OnBadMask.reject:
                raise ImageRejected("implausible_mask", f"the lung mask is not plausible: {problems}")
            facts["fallback"] = problems
            mask = np.zeros_like(mask)
            mask[content] = 255
        image.mask = mask
        _store(image, "masks", f"{image.item.row.image_id}.png", encode_png(mask), facts)

    def _against_truth(self, image: Image, mask: np.ndarray) -> dict[str, float]:
        if image.item.truth is None:
            return {}
        truth = cv2.imread(str(processing_input("landing") / image.item.truth), cv2.IMREAD_GRAYSCALE)
        if truth is None or truth.shape != (image.item.row.height, image.item.row.width):
            log.warning("the ground-truth mask of image %s does not fit it and is left out", image.item.row.image_id)
            return {}
        truth = image.letterbox.apply(truth, nearest=True)
        agreement = overlap(truth > 127, mask > 0)
        if np.isnan(agreement.dice):
            return {}  # both are empty: there is nothing to agree on
        return {"dice": round(agreement.dice, 4), "iou": round(agreement.iou, 4)}

    def _enhance(self, image: Image) -> None:
        assert image.square is not None
        assert image.mask is not None
        result = enhance(image.square, image.mask, image.letterbox.content, self.config.enhance)
        image.enhanced, image.small_mask = result.image, result.mask
        name = f"{image.item.row.image_id}.png"
        _store(image, "preprocessed", name, encode_png(result.image), {"crop_box": list(result.crop_box)})

    def _pack(self, image: Image) -> None:
        assert image.enhanced is not None
        if image.small_mask is None:
            assert image.mask is not None
            image.small_mask = fit_mask(image.mask, tuple(image.item.row.stages["preprocessed"].facts["crop_box"]))
        _store(image, "npz", f"{image.item.row.image_id}.npz", npz_bytes(pack_tensor(image.enhanced, image.small_mask)))


def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    config = PrepareConfig.from_yaml(processing_input("work") / "config.json")
    items = _share(load_work((processing_input("work") / "work.jsonl").read_bytes()))
    cv2.setNumThreads(1)  # the images are the unit of parallel work
    preparer = Preparer(config, _key(), _segmenter(items, arguments.threads))
    started = time.perf_counter()
    rows, seconds = [], dict.fromkeys(("raw", "segment", "masks", "preprocessed", "npz"), 0.0)
    with ThreadPoolExecutor(arguments.threads) as pool:
        loaded = bounded_map(pool, preparer.load, items, 2 * arguments.batch_size)
        segmented = _segmented(preparer, loaded, arguments.batch_size)
        for image in bounded_map(pool, preparer.finish, segmented, 2 * arguments.batch_size):
            rows.append(image.item.row)
            for stage, spent in image.seconds.items():
                seconds[stage] += spent
            if len(rows) % 50 == 0 or len(rows) == len(items):
                log.info("prepared %d of %d images in %.1f s", len(rows), len(items), time.perf_counter() - started)
    host = hosts()[0]
    output = processing_output("rows")
    write_atomic(output / f"rows-{host}.jsonl", dump_rows(rows))
    values = {
        "images": len(rows),
        "rejected": sum(row.status == "rejected" for row in rows),
        "seconds": round(time.perf_counter() - started, 3),
        "stage_seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
    }
    write_result(output, "prepare", values)


def bounded_map(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], limit: int) -> Iterator[R]:
    """`map` in order on a pool, with at most ``limit`` results computed ahead: memory stays flat."""
    pending: deque[Future[R]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) >= limit:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _segmented(preparer: Preparer, images: Iterable[Image], batch_size: int) -> Iterator[Image]:
    iterator = iter(images)
    while batch := list(islice(iterator, batch_size)):
        preparer.segment(batch)
        yield from batch


def _share(items: list[WorkItem]) -> list[WorkItem]:
    """This host's part of the work: every image falls to exactly one host."""
    host, names = hosts()
    return items[names.index(host) :: len(names)]


def _key() -> bytes | None:
    value = os.environ.get(KEY_VARIABLE, "")
    if value and len(value) < 16:
        raise JobError(f"{KEY_VARIABLE} must have at least 16 bytes")
    return value.encode() or None


def _segmenter(items: list[WorkItem], threads: int) -> LungSegmenter | None:
    if not any("masks" in item.compute for item in items):
        return None
    weights = processing_input("weights") / "lung_unet.safetensors"
    return LungSegmenter(weights if weights.exists() else None, threads=threads)


def _stored(stage: str, item: WorkItem) -> bytes:
    return (processing_input(stage) / Path(item.row.stages[stage].key).name).read_bytes()


def _store(image: Image, stage: str, name: str, data: bytes, facts: dict[str, Any] | None = None) -> None:
    write_atomic(processing_output(stage) / name, data)
    image.item.row.stages[stage] = StageOutput(
        key=f"{stage}/{name}",
        sha256=hashlib.sha256(data).hexdigest(),
        fingerprint=image.item.fingerprints[stage],
        facts=facts or {},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8, help="images segmented together (default 8)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads (default: all cores)")
    return parser


if __name__ == "__main__":
    run_program(main)
