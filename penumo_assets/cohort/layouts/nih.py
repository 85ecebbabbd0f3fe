"""ChestX-ray14 (Wang et al. 2017): ``Data_Entry_2017.csv``, ``images_001/images/00000001_000.png`` and so on."""

from collections.abc import Iterator

from penumo_assets.cohort.layouts.base import NORMAL, PNEUMONIA, TEST, TRAIN_VAL, Film, Folder, Layout, Options

_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "sample_labels.csv")
_COLUMNS = ("image_index", "finding_labels", "patient_id")


def read(folder: Folder, options: Options) -> Iterator[Film]:
    lists = {"train_val_list.txt": TRAIN_VAL, "test_list.txt": TEST}
    split_of = {
        image: split for base, split in lists.items() if (name := folder.find(base)) for image in folder.lines(name)
    }
    for row in folder.table(folder.need(*_TABLES), *_COLUMNS):
        findings = row["finding_labels"].split("|")
        yield Film(
            folder.image(row["image_index"]),
            patient_id=row["patient_id"],
            label=PNEUMONIA if "Pneumonia" in findings else NORMAL if findings == ["No Finding"] else "",
            finding="; ".join(findings),
            view=row.get("view_position", ""),
            sex=row.get("patient_gender") or row.get("patient_sex", ""),
            age=row.get("patient_age", ""),
            split=split_of.get(row["image_index"], ""),
        )


LAYOUT = Layout(
    "nih",
    "NIH ChestX-ray14, Wang et al. 2017",
    {"No Finding": NORMAL, "Pneumonia, alone or with others": PNEUMONIA},
    read,
    "column Patient ID",
    "test_list.txt; train_val_list.txt is divided by patient",
)
