"""What the prepare job does with a batch of images: decode, letterbox, (segment), enhance, pack."""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from penumo_assets.configs.prepare import Deidentify, PrepareConfig, RawFormat
from penumo_assets.imaging.decode import DecodedImage, decode_image, encode_png, read_back
from penumo_assets.imaging.deidentify import PICTURE_EXTENSIONS, is_plain_text, is_safe_id, pseudonym
from penumo_assets.imaging.enhance import enhance, fit_mask, unfiltered
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats import jpeg
from penumo_assets.imaging.formats.files import read_plain_file
from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.imaging.pack import pack_tensor
from penumo_assets.imaging.view import view_code
from penumo_assets.jobs.contract import JobError, processing_input
from penumo_assets.jobs.identity import patient_of
from penumo_assets.jobs.manifest import ManifestRow, fingerprint
from penumo_assets.jobs.prepare.image import Image, guarded, store, stored
from penumo_assets.jobs.prepare.masks import MaskStage
from penumo_assets.jobs.prepare.work import KEY_VARIABLE, WorkItem, key_from_environment
from penumo_assets.metrics.preparation import border_quantities


class Preparer:
    """The stages, with what they share: settings, key and, where masks are made, the segmenter.

    Parameters
    ----------
    config : PrepareConfig
    weights : Path or None
        Segmenter weights, the bundled ones where the file is missing. ``None``: no masks are made.
    threads : int
        Threads of the segmenter; everything else runs on the caller's thread alone.
    """

    def __init__(self, config: PrepareConfig, weights: Path | None, threads: int = 1) -> None:
        cv2.setNumThreads(1)  # images are the unit of parallel work
        self.config = config
        self.key = key_from_environment()
        self.masks = None
        if weights is not None:
            self.masks = MaskStage(config.segment, weights if weights.exists() else None, threads)

    def prepare(self, items: list[WorkItem]) -> list[tuple[ManifestRow, dict[str, float]]]:
        """Compute what a batch of images needs: each one's row, and the processor seconds of each of its stages."""
        images = [self._load(item) for item in items]
        chosen = [image for image in images if "masks" in image.wants]
        if chosen:
            assert self.masks is not None
            self.masks.make(chosen)
        for image in images:
            if "preprocessed" in image.wants:
                guarded(image, "preprocessed", self._enhance)
            if "npz" in image.wants:
                guarded(image, "npz", self._pack)
        return [(image.item.row, image.seconds) for image in images]

    def _load(self, item: WorkItem) -> Image:
        """Decode the landed file, or read back what the first stage to compute needs."""
        image, row = Image(item), item.row
        if row.status == "rejected" and row.stage in item.compute:
            row.status, row.stage, row.code, row.reason, row.attempted = "accepted", None, None, None, {}
        if "raw" in item.compute:
            guarded(image, "raw", self._decode)
        wants = set(image.wants)
        if wants & {"masks", "preprocessed"} and "raw" not in wants:
            image.square = image.letterbox.apply(read_back(stored("raw", item)))
        if wants & {"preprocessed", "npz"} and "masks" not in wants:
            image.mask = read_back(stored("masks", item))
        if "npz" in wants and "preprocessed" not in wants:
            image.enhanced = read_back(stored("preprocessed", item))
        return image

    def _decode(self, image: Image) -> None:
        item, row = image.item, image.item.row
        data = read_plain_file(processing_input("landing") / item.landed, self.config.decode.max_file_bytes)
        row.source_sha256 = hashlib.sha256(data).hexdigest()
        if self.config.decode.reject_lateral and view_code(row.view or "") == "LATERAL":
            raise ImageRejected("lateral_view", f"labels.csv says the view is {row.view}")
        decoded = decode_image(data, self.config.decode)
        found, notes = patient_of(item.label_patient_id, decoded.patient_id)
        raw_id = found or row.image_id
        row.patient_id = self._told(item, decoded, raw_id)
        row.split_key = pseudonym(raw_id, self.key) if self.key else None
        row.height, row.width = decoded.size
        row.format, row.notes = decoded.format, [*decoded.notes, *notes]
        tags = decoded.tags
        row.tags = {"view": tags.view, "sex": tags.sex, "age": tags.age, "modality": tags.modality}
        row.tags |= {"pixel_spacing_mm": tags.pixel_spacing_mm, "burned_in": tags.burned_in, "bits": decoded.bits}
        row.tags = {name: value for name, value in row.tags.items() if value is not None}
        row.view, row.sex = row.view or tags.view, row.sex or tags.sex
        row.age = row.age if row.age is not None else tags.age
        row.mean_intensity = round(_mean(decoded.pixels), 6)
        if set(item.compute) & {"masks", "preprocessed"}:
            image.square = image.letterbox.apply(decoded.pixels)
        self._store_raw(image, decoded, data)

    def _store_raw(self, image: Image, decoded: DecodedImage, landed: bytes) -> None:
        row, settings = image.item.row, self.config.decode
        if settings.raw_format is RawFormat.keep and decoded.kept:
            name = f"{row.image_id}.{'jpg' if jpeg.looks_like(decoded.kept) else 'png'}"
            known = row.source_sha256 if decoded.kept == landed else None
            return store(image, "raw", name, decoded.kept, sha256=known)
        # Of 16 bits the same pixels are not always the same bytes.
        content = fingerprint("raw", settings.model_dump(mode="json"), row.source_sha256 or "")
        deep = decoded.pixels.dtype == np.uint16
        store(image, "raw", f"{row.image_id}.png", encode_png(decoded.pixels), content=content if deep else None)

    def _told(self, item: WorkItem, decoded: DecodedImage, raw_id: str) -> str:
        """The patient's id as it may be told; of a patient without one the image's own."""
        if not is_plain_text(raw_id):
            raise ImageRejected("unsafe_patient_id", "the patient id has characters that cannot be seen, or too many.")
        mode = self.config.decode.deidentify
        if mode is Deidentify.always or (mode is Deidentify.dicom and decoded.format == "dicom"):
            if self.key is None:
                if item.landed.lower().endswith(PICTURE_EXTENSIONS) and mode is Deidentify.dicom:
                    # Pictures need no key, so that none is set is no mistake: this file is.
                    raise ImageRejected(
                        "dicom_without_key",
                        f"it is a DICOM file under a picture's name, and {KEY_VARIABLE} is not set.",
                    )
                raise JobError(
                    f"patient ids must be pseudonymised, but {KEY_VARIABLE} is not set: set it to a secret of at least "
                    "16 bytes and keep it, or set decode.deidentify to never"
                )
            return pseudonym(raw_id, self.key)
        if not is_safe_id(raw_id):
            raise ImageRejected("unsafe_patient_id", "the patient id cannot be a file's name: A-Z a-z 0-9 . _ - can.")
        return raw_id

    def _enhance(self, image: Image) -> None:
        assert image.square is not None
        assert image.mask is not None
        result = enhance(image.square, image.mask, image.letterbox.content, self.config.enhance)
        image.enhanced, image.small_mask = result.image, result.mask
        name = f"{image.item.row.image_id}.png"
        before = unfiltered(image.square, result.crop_box, image.letterbox.content, self.config.enhance)
        border = border_quantities(before, result.mask > 0)
        facts: dict[str, list[float]] = {"crop_box": list(result.crop_box)}
        if np.isfinite(border).all():
            facts["film_border"] = [round(value, 3) for value in border]
        store(image, "preprocessed", name, encode_png(result.image), facts)

    def _pack(self, image: Image) -> None:
        assert image.enhanced is not None
        if image.small_mask is None:
            assert image.mask is not None
            image.small_mask = fit_mask(image.mask, tuple(image.item.row.stages["preprocessed"].facts["crop_box"]))
        store(image, "npz", f"{image.item.row.image_id}.npz", npz_bytes(pack_tensor(image.enhanced, image.small_mask)))


def _mean(pixels: np.ndarray) -> float:
    """Mean intensity as a share of the full range."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return sum(cv2.mean(pixels)[:channels]) / channels / np.iinfo(pixels.dtype).max
