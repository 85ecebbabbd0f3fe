"""Every step between a landed file and an NPZ tensor, with its switch and its parameters.

The defaults stand in ``prepare_config.yaml``; the Dagster launchpad shows the same fields with the
same descriptions.
"""

from enum import StrEnum
from string import Formatter
from typing import Any

from pydantic import Field, field_validator, model_validator

from penumo_assets.configs.base import StrictModel, defaults_from


class Deidentify(StrEnum):
    """Whose patient ids are replaced by keyed hashes."""

    dicom = "dicom"
    always = "always"
    never = "never"


class RawFormat(StrEnum):
    """How a decoded picture is stored."""

    keep = "keep"
    png = "png"


class OnBadMask(StrEnum):
    """What to do with an image whose lung mask is not plausible."""

    reject = "reject"
    whole_image = "whole_image"


class FileNames(StrEnum):
    """What of a landed file's name may stand outside landing."""

    pseudonymise = "pseudonymise"
    keep = "keep"


class SegmenterBackend(StrEnum):
    """Which network draws the lungs."""

    lung_unet = "lung_unet"
    pspnet = "pspnet"


class Colour(StrEnum):
    """What fills the first three channels of a tensor."""

    gray = "gray"
    rgb = "rgb"


class DecodeConfig(StrictModel):
    """From a landed file to de-identified pixels (`raw_images`)."""

    deidentify: Deidentify = Field(
        description="Replace patient ids by HMAC-SHA-256 with the key in PENUMO_DEID_KEY: "
        "for DICOM files, always, or never.",
    )
    raw_format: RawFormat = Field(
        description="Keep the coded picture as it landed, without anything else, where it has the same pixels (JPEG, "
        "PNG, and JPEG within DICOM) and write PNG elsewhere; or write all as PNG.",
    )
    reject_lateral: bool = Field(description="Refuse images whose header or labels.csv says the view is lateral.")
    keep_colour: bool = Field(description="Keep real RGB where the source has it instead of its luminance.")
    window_low_percentile: float = Field(
        ge=0,
        lt=50,
        description="Lower percentile of the window when a DICOM file of more than 8 bits carries none.",
    )
    window_high_percentile: float = Field(
        gt=50,
        le=100,
        description="Upper percentile of the window when a DICOM file of more than 8 bits carries none.",
    )
    max_megapixels: float = Field(
        gt=0, le=400, description="Refuse images that declare more than this many million pixels."
    )
    min_side: int = Field(ge=1, description="Refuse images whose shorter side has fewer pixels.")
    reduce_to: int | None = Field(
        ge=512,
        description="Store images at half, a quarter or an eighth of their size, as long as their longer side keeps "
        "this many pixels. At 512, which is what segmentation and enhancement look at, DICOM takes a quarter of the "
        "bytes and two thirds of the time; a JPEG that would be kept as it landed takes about as many bytes, and more "
        "time. Empty: at the size they landed with.",
    )

    @property
    def max_file_bytes(self) -> int:
        """The largest file that is read: ``max_megapixels`` of 16-bit colour samples hardly compressed, and a header.

        A deflated file may inflate to this much.
        """
        return int(self.max_megapixels * 4_000_000) + 16_000_000


class PlausibilityConfig(StrictModel):
    """What a lung mask must look like to be believed.

    Of 429 masks drawn by people (the model card's data), the areas lie between 0.09 and 0.54, the balance above 0.61
    and the offset below 0.23.
    """

    min_area_fraction: float = Field(ge=0, le=1, description="Least share of the image content that is lung.")
    max_area_fraction: float = Field(ge=0, le=1, description="Largest share of the image content that is lung.")
    min_side_balance: float = Field(
        ge=0, le=1, description="Least ratio of the smaller lung's area to the larger one's."
    )
    max_centroid_offset: float = Field(
        ge=0,
        le=1,
        description="Largest distance of the mask's centroid from the content's centre, "
        "as a share of the content's side, in either axis.",
    )
    min_look_agreement: float = Field(
        ge=0,
        le=1,
        description="Least agreement (Dice) of the bundled network's two looks: below it the picture is taken for no "
        "chest film. 0.88 refuses 97 % of other pictures and 0.6 % of films, held out; with other weights it is not "
        "judged.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "PlausibilityConfig":
        if self.min_area_fraction >= self.max_area_fraction:
            raise ValueError("min_area_fraction must be below max_area_fraction")
        return self


class SegmentConfig(StrictModel):
    """From pixels to a lung mask in 512x512 letterbox coordinates (`lung_masks`)."""

    seg_on_gray: bool = Field(
        description="Segment the luminance. False: segment each colour channel and average the probabilities "
        "(differs only where keep_colour keeps real colour).",
    )
    backend: SegmenterBackend = Field(
        description="lung_unet: the weights that the asset lung_segmenter holds. pspnet: torchxrayvision's PSPNet, if "
        "that package is installed where jobs run; its lungs end at the heart's border.",
    )
    threshold: float = Field(gt=0, lt=1, description="Probability above which a pixel is lung.")
    on_bad_mask: OnBadMask = Field(
        description="An implausible mask rejects the image, or the whole image is used as if it were lung.",
    )
    plausibility: PlausibilityConfig = Field(description="Limits for a mask.")


class ClaheConfig(StrictModel):
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994)."""

    enabled: bool = Field(description="Apply CLAHE.")
    clip_limit: float = Field(gt=0, le=40, description="Contrast limit, OpenCV's clipLimit.")
    tile_grid: int = Field(ge=1, le=64, description="Tiles per side, OpenCV's tileGridSize.")


class BlurConfig(StrictModel):
    """Gaussian blur against noise."""

    enabled: bool = Field(description="Apply a Gaussian blur.")
    kernel_size: int = Field(ge=1, le=31, description="Kernel side in pixels, odd.")
    sigma: float = Field(gt=0, le=10, description="Standard deviation in pixels.")

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd")
        return value


class MinMaxConfig(StrictModel):
    """Linear stretch of the intensities to the full range."""

    enabled: bool = Field(description="Stretch the intensities to 0..255.")
    low_percentile: float = Field(ge=0, lt=50, description="Percentile that becomes 0.")
    high_percentile: float = Field(gt=50, le=100, description="Percentile that becomes 255.")


class SharpenConfig(StrictModel):
    """Unsharp masking."""

    enabled: bool = Field(description="Apply an unsharp mask.")
    amount: float = Field(gt=0, le=5, description="Weight of the detail that is added.")
    sigma: float = Field(gt=0, le=20, description="Standard deviation of the blur, in pixels.")


class EnhanceConfig(StrictModel):
    """From pixels and mask to the 224x224 image a classifier sees (`preprocessed_images`)."""

    crop_to_lungs: bool = Field(description="Crop to the box around the lungs, widened by crop_margin.")
    crop_margin: float = Field(ge=0, le=1, description="Margin around the lung box, as a share of its sides.")
    keep_aspect: bool = Field(
        description="Widen the crop to a square instead of squashing it to one: the lungs keep their shape, but black "
        "bars where the film ends, and the place of the lungs, tell the film's shape, which tells classes apart.",
    )
    max_squash: float = Field(
        ge=1,
        le=4,
        description="Largest ratio of the sides of a crop that is squashed: a longer one is widened by the film's own "
        "pixels first, as far as the film reaches. Of 600 films none has lungs beyond 2.",
    )
    apply_mask: bool = Field(description="Set pixels outside the lungs to 0.")
    colour: Colour = Field(description="Gray replicated to R, G and B, or real RGB where it was kept.")
    clahe: ClaheConfig = Field(description="Local contrast.")
    gaussian_blur: BlurConfig = Field(description="Noise.")
    min_max: MinMaxConfig = Field(description="Intensity range.")
    sharpen: SharpenConfig = Field(description="Detail.")


class NpzConfig(StrictModel):
    """From the enhanced image and its mask to a tensor file (`npz_tensors`)."""

    filename: str = Field(
        description="Name of a tensor file without .npz, from {patient_id} and {image_id}. Where that gives the name "
        "of another film of the patient, _{image_id} follows.",
    )

    @field_validator("filename")
    @classmethod
    def _template(cls, value: str) -> str:
        try:
            fields = {name for _, name, _, _ in Formatter().parse(value) if name is not None}
        except ValueError as error:
            raise ValueError(f"not a valid template: {error}") from error
        if not fields <= {"patient_id", "image_id"}:
            raise ValueError("may name only {patient_id} and {image_id}")
        if not fields:
            raise ValueError("must name {patient_id} or {image_id}, or every image gets the same name")
        if "/" in value or ".." in value:
            raise ValueError("must be one file name, without folders")
        return value


class LabelsConfig(StrictModel):
    """What labels.csv and the names of landed files may say outside landing."""

    classes: list[str] = Field(
        description="The classes, in lower case; an image whose label is none of them, after map, is rejected. Empty: "
        "any label is a class.",
    )
    map: dict[str, str] = Field(
        description="Labels of the table, in lower case, and the class that each stands for, such as bacterial: "
        "pneumonia or no finding: normal.",
    )
    file_names: FileNames = Field(
        description="Names of landed files, which often hold a patient's name: replaced by HMAC-SHA-256 with the key "
        "in PENUMO_DEID_KEY (`penumo rejected` tells them), or kept, where they are known to identify nobody.",
    )
    keep_columns: list[str] = Field(
        description="Columns of labels.csv to keep in the manifest as they are, such as finding. Empty: none, because "
        "free text can name a patient.",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_earlier_versions_said(cls, values: Any) -> Any:
        if isinstance(values, dict) and "allowed" in values and "classes" not in values:
            return {"classes" if name == "allowed" else name: value for name, value in values.items()}
        return values

    @model_validator(mode="after")
    def _mapped_to_classes(self) -> "LabelsConfig":
        if self.classes and (strangers := sorted(set(self.map.values()) - set(self.classes))):
            raise ValueError(f"map leads to {', '.join(strangers)}, which classes does not hold")
        if spelled := sorted(name for name in (*self.classes, *self.map) if name != name.strip().lower()):
            raise ValueError(f"labels are compared in lower case, without spaces around them: {', '.join(spelled)}")
        return self

    def class_of(self, label: str) -> str | None:
        """The class that a label of the table stands for; None if it is unknown."""
        found = self.map.get(label.lower(), label.lower())
        return found if not self.classes or found in self.classes else None


@defaults_from("prepare_config.yaml")
class PrepareConfig(StrictModel):
    """Everything between landing and NPZ tensors."""

    labels: LabelsConfig = Field(description="What labels.csv and file names may say.")
    decode: DecodeConfig = Field(description="Landed file to de-identified pixels.")
    segment: SegmentConfig = Field(description="Pixels to lung mask.")
    enhance: EnhanceConfig = Field(description="Pixels and mask to enhanced image.")
    npz: NpzConfig = Field(description="Enhanced image and mask to tensor.")

    @model_validator(mode="after")
    def _colour_needs_colour(self) -> "PrepareConfig":
        if self.enhance.colour is Colour.rgb and not self.decode.keep_colour:
            raise ValueError("enhance.colour=rgb needs decode.keep_colour=true, or there is no colour to use")
        return self
