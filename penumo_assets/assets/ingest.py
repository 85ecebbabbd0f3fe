"""What enters: landing objects, as a hospital delivers them. `penumo land` and the sensors report them."""

from dagster import AssetSpec

from penumo_assets.assets.shared import INGEST, OWNERS
from penumo_assets.partitions import cohorts

landing = AssetSpec(
    "landing",
    partitions_def=cohorts,
    group_name=INGEST,
    owners=OWNERS,
    kinds={"dicom", "s3"},
    description=(
        "Objects as they arrive under `landing/{cohort}/`: images (DICOM, PNG, JPEG), optionally `labels.csv` "
        "(file, patient_id, label, finding, view, sex, age), ground-truth `masks/` and the marker `_COMPLETE`."
    ),
)
