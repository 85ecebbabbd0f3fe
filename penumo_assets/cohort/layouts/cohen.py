"""COVID-19 image data collection (Cohen et al. 2020): ``metadata.csv`` and ``images/``."""

from collections.abc import Iterator

from penumo_assets.cohort.layouts.base import NORMAL, PNEUMONIA, Film, Folder, Layout, Options, frontal


def read(folder: Folder, options: Options) -> Iterator[Film]:
    table = folder.need("metadata.csv")
    for row in folder.table(table, "patientid", "finding", "view", "modality", "filename"):
        finding = row["finding"]
        placed = folder.path(f"{row['folder']}/{row['filename']}", table) if row.get("folder") else ""
        other = "" if row["modality"].lower() == "x-ray" else f"modality {row['modality'] or 'unknown'}"
        yield Film(
            placed or folder.image(row["filename"]),
            patient_id=row["patientid"],
            label=PNEUMONIA if finding.split("/")[0] == "Pneumonia" else NORMAL if finding == "No Finding" else "",
            finding=finding,
            view=row["view"],
            sex=row.get("sex", ""),
            age=row.get("age", ""),
            left_out=other or frontal(row["view"]),
        )


LAYOUT = Layout(
    "cohen",
    "COVID-19 image data collection, Cohen et al. 2020",
    {"Pneumonia/…": PNEUMONIA, "No Finding": NORMAL},
    read,
    "column patientid",
)
