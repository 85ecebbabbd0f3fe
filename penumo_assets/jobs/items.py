"""What a job that reads tensors is told of each: which file, whose, and how the film landed."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from penumo_assets.jobs.manifest import ManifestRow


class FilmItem(BaseModel):
    """A line of a list of tensors, in what all jobs ask for; width, height and bytes are the landed film's."""

    model_config = ConfigDict(extra="forbid")

    file: str
    image_id: str
    patient_id: str
    sha256: str | None = None
    source_width: int | None = None
    source_height: int | None = None
    source_bytes: int | None = None
    mean_intensity: float | None = None


def film_item(row: ManifestRow) -> dict[str, Any]:
    """The values of a `FilmItem` for a film that has a tensor, and its label."""
    output = row.stages["npz"]
    return row.model_dump(include={"image_id", "patient_id", "label", "source_bytes", "mean_intensity"}) | {
        "file": output.key.removeprefix("npz/"),
        "sha256": output.sha256,
        "source_width": row.width,
        "source_height": row.height,
    }
