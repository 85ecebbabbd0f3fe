"""MIMIC-CXR-JPG (Johnson et al. 2019): ``files/p10/p10000032/s50414267/{dicom_id}.jpg`` and its tables."""

from collections.abc import Iterator

from penumo_assets.cohort.layouts.base import TEST, TRAIN, VALIDATION, Film, Folder, Layout, Options, frontal
from penumo_assets.cohort.layouts.chexpert_labels import LABELS, label_of

_TABLE = "mimic-cxr-2.0.0-{}.csv"
_SPLITS = {"train": TRAIN, "validate": VALIDATION, "test": TEST}


def read(folder: Folder, options: Options) -> Iterator[Film]:
    metadata = folder.need(_TABLE.format("metadata"))
    splits = folder.find(_TABLE.format("split"))
    split_of = {row["dicom_id"]: row["split"] for row in folder.table(splits, "dicom_id", "split")} if splits else {}
    labels = folder.need(_TABLE.format("chexpert"), _TABLE.format("negbio"))
    label_of_study = {
        row["study_id"]: label_of(row, options.uncertain)
        for row in folder.table(labels, "subject_id", "study_id", "pneumonia", "no_finding")
    }
    for row in folder.table(metadata, "dicom_id", "subject_id", "study_id", "viewposition"):
        patient, study = row["subject_id"], row["study_id"]
        label, finding = label_of_study.get(study, ("", ""))
        view = row["viewposition"] or row.get("viewcodesequence_codemeaning", "")
        yield Film(
            folder.path(f"files/p{patient[:2]}/p{patient}/s{study}/{row['dicom_id']}.jpg", metadata),
            patient_id=patient,
            label=label,
            finding=finding,
            view=view,
            split=_SPLITS.get(split_of.get(row["dicom_id"], ""), ""),
            left_out=frontal(view),
        )


LAYOUT = Layout(
    "mimic-cxr-jpg",
    "MIMIC-CXR-JPG 2, Johnson et al. 2019 (labels by CheXpert, else by NegBio)",
    LABELS,
    read,
    "column subject_id",
    "mimic-cxr-2.0.0-split.csv: train, validate and test",
)
