"""Each public data set in its own shape: real file and column names, a few rows, and the labels.csv made of them."""

import csv
import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penumo_assets.cli.cohorts import _LAYOUTS
from penumo_assets.cli.main import main
from penumo_assets.cohort.labels import Label, parse_labels
from penumo_assets.cohort.layouts import LAYOUTS
from penumo_assets.configs.prepare import LabelsConfig
from penumo_assets.resources.storage.file_store import FileStore

CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)
MIMIC = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices\n"
)
NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)


@dataclass
class Ward:
    """A folder to land, and what became of it."""

    root: Path
    folder: Path

    def write(self, files: dict[str, str | bytes]) -> None:
        for name, data in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)

    def land(self, *options: str) -> Result:
        return CliRunner().invoke(main, ["land", "k", str(self.folder), *options])

    def landed(self, *options: str) -> dict[str, Label]:
        result = self.land(*options)
        assert result.exit_code == 0, result.output
        data = FileStore(self.root).read("landing/k/labels.csv")
        return parse_labels(data, "k", LabelsConfig(file_names="keep", classes=[]), None)

    @property
    def table(self) -> dict[str, dict[str, str]]:
        text = FileStore(self.root).read("landing/k/labels.csv").decode()
        return {row["file"]: row for row in csv.DictReader(io.StringIO(text))}

    @property
    def names(self) -> set[str]:
        keys = {info.key.removeprefix("landing/k/") for info in FileStore(self.root).list_objects("landing/k")}
        return keys - {"labels.csv", "_COMPLETE"}


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    monkeypatch.setenv("PENUMO_ROOT", str(tmp_path / "root"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    (tmp_path / "set").mkdir()
    return Ward(tmp_path / "root", tmp_path / "set")


def told(labels: dict[str, Label], *fields: str) -> dict[str, tuple[Any, ...]]:
    return {name.rsplit("/", 1)[-1]: tuple(getattr(label, field) for field in fields) for name, label in labels.items()}


def test_the_command_names_every_layout() -> None:
    assert set(_LAYOUTS) == set(LAYOUTS)


def test_kermany(ward: Ward) -> None:
    normal = (
        "train/NORMAL/IM-0115-0001.jpeg",
        "train/NORMAL/NORMAL2-IM-0383-0001.jpeg",
        "val/NORMAL/IM-0115-0002.jpeg",
    )
    ill = ("train/PNEUMONIA/person12_bacteria_3.jpeg", "TEST/PNEUMONIA/person12_virus_41.jpeg")
    ward.write({f"chest_xray/{name}": name for name in (*normal, *ill)})
    ward.write({f"chest_xray/chest_xray/{ill[0]}": "a copy", "chest_xray/train/.DS_Store": "", "readme.jpeg": ""})
    labels = ward.landed("--layout", "kermany", "--official-split")
    assert told(labels, "patient_id", "label", "split") == {
        "IM-0115-0001.jpeg": ("IM-0115", "normal", "train_val"),
        "NORMAL2-IM-0383-0001.jpeg": ("NORMAL2-IM-0383", "normal", "train_val"),
        "IM-0115-0002.jpeg": ("IM-0115", "normal", "train_val"),
        "person12_bacteria_3.jpeg": ("person12", "pneumonia", "train_val"),
        "person12_virus_41.jpeg": ("person12", "pneumonia", "test"),
    }
    assert len(ward.names) == 5


@pytest.mark.parametrize("table", ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"])
def test_nih(ward: Ward, table: str) -> None:
    ward.write(
        {
            table: NIH + "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143\n"
            "00000002_000.png,No Finding,0,2,81,F,AP,2500,2048,0.171,0.171\n"
            "00000003_005.png,Infiltration|Pneumonia,5,3,414,F,PA,2992,2991,0.143,0.143\n"
            "00000004_000.png,No Finding,0,4,50,F,PA,2992,2991,0.143,0.143\n",
            "train_val_list.txt": "00000001_000.png\n00000002_000.png\n",
            "test_list.txt": "00000003_005.png\n",
            "images_001/images/00000001_000.png": "1",
            "images_001/images/00000002_000.png": "2",
            "images_002/images/00000003_005.png": "3",
            "images_002/images/00000099_000.png": "no row",
        }
    )
    labels = ward.landed("--layout", "nih", "--official-split")
    assert told(labels, "patient_id", "label", "view", "sex", "age", "split") == {
        "00000001_000.png": ("1", None, "PA", "M", 58, "train_val"),
        "00000002_000.png": ("2", "normal", "AP", "F", 81, "train_val"),
        "00000003_005.png": ("3", "pneumonia", "PA", "F", None, "test"),
    }
    output = ward.land("--layout", "nih").output
    for line in ("3 films, 3 patients", "normal: 1", "pneumonia: 1", "without a label: 1", "No Finding -> normal"):
        assert line in output
    assert "left out, its file is not in the folder: 1" in output
    assert "left out, no row of the table names it: 1" in output


def test_only_labelled_films_where_they_are_asked_for(ward: Ward) -> None:
    ward.write({"Data_Entry_2017.csv": NIH + "a.png,Hernia,0,1,58,M,PA,1,1,1,1\nb.png,No Finding,0,2,8,F,PA,1,1,1,1\n"})
    ward.write({"images/a.png": "a", "images/b.png": "b"})
    assert list(ward.landed("--layout", "nih", "--labelled-only")) == ["images/b.png"]
    assert ward.names == {"images/b.png"}


def test_rsna(ward: Ward) -> None:
    ward.write(
        {
            "stage_2_train_labels.csv": "patientId,x,y,width,height,Target\np-1,,,,,0\np-2,264.0,152.0,213.0,379.0,1\n"
            "p-2,562.0,152.0,256.0,453.0,1\np-3,,,,,0\n",
            "stage_2_detailed_class_info.csv": "patientId,class\np-1,No Lung Opacity / Not Normal\np-2,Lung Opacity\n"
            "p-2,Lung Opacity\np-3,Normal\n",
            **{f"stage_2_train_images/p-{number}.dcm": str(number) for number in (1, 2, 3)},
            "stage_2_test_images/p-9.dcm": "9",
        }
    )
    labels = ward.landed("--layout", "rsna")
    assert told(labels, "patient_id", "label") == {
        "p-1.dcm": ("p-1", None),
        "p-2.dcm": ("p-2", "pneumonia"),
        "p-3.dcm": ("p-3", "normal"),
    }
    boxes = {label.source.rpartition("/")[2]: label.boxes for label in labels.values()}
    assert boxes == {"p-1.dcm": (), "p-2.dcm": ((264, 152, 213, 379), (562, 152, 256, 453)), "p-3.dcm": ()}
    mapping = [
        {"subset_img_id": "p-2", "img_id": "00016606_003.png"},
        {"subset_img_id": "p-3", "img_id": "00016606_004.png"},
    ]
    ward.write({"pneumonia-challenge-dataset-mappings_2018.json": json.dumps(mapping)})
    assert told(ward.landed("--layout", "rsna"), "patient_id")["p-3.dcm"] == ("00016606",)


@pytest.mark.parametrize(("policy", "third"), [("u-ignore", None), ("u-zeros", "normal"), ("u-ones", "pneumonia")])
@pytest.mark.parametrize("above", ["", "CheXpert-v1.0-small/"])
def test_chexpert(ward: Ward, above: str, policy: str, third: str | None) -> None:
    path = "CheXpert-v1.0-small/{}/patient{}/study1/view1_{}.jpg"
    rows = (
        (path.format("train", "00001", "frontal"), "Female,68,Frontal,AP,,,,,,,,1.0,,,,,,1.0"),
        (path.format("train", "00002", "frontal"), "Male,87,Frontal,PA,1.0,,,,,,,,,,,,,"),
        (path.format("train", "00003", "frontal"), "Male,40,Frontal,PA,1.0,,,,,,,-1.0,,,,,,"),
        (path.format("train", "00003", "lateral"), "Male,40,Lateral,,1.0,,,,,,,,,,,,,"),
    )
    valid = (path.format("valid", "64541", "frontal"), "Male,73,Frontal,AP,0.0,1.0,0.0,1.0,0.0,0.0,0.0,0.0,0,0,0,0,0,0")
    ward.write({above + name.removeprefix("CheXpert-v1.0-small/"): name for name, _ in (*rows, valid)})
    ward.write({f"{above}train.csv": CHEXPERT + "".join(f"{name},{rest}\n" for name, rest in rows)})
    ward.write({f"{above}valid.csv": CHEXPERT + ",".join(valid) + "\n"})
    labels = ward.landed("--layout", "chexpert", "--official-split", "--uncertain", policy)
    found = {
        label.patient_id: (label.label, label.view, label.sex, label.age, label.split) for label in labels.values()
    }
    assert found == {
        "patient00001": ("pneumonia", "AP", "F", 68, "train_val"),
        "patient00002": ("normal", "PA", "M", 87, "train_val"),
        "patient00003": (third, "PA", "M", 40, "train_val"),
        "patient64541": (None, "AP", "M", 73, "test"),
    }
    assert "left out, lateral view: 1" in ward.land("--layout", "chexpert").output


@pytest.mark.parametrize("place", ["PNG/PNG/train/patient42142/study5/view1_frontal.png", "DICOM/train/a.dcm"])
def test_chexpert_plus(ward: Ward, place: str) -> None:
    image = "train/patient42142/study5/view1_frontal.jpg"
    labelled = {"path_to_image": image, "Pneumonia": 1.0, "No Finding": None, "Lung Opacity": 1.0}
    ward.write(
        {
            "df_chexpert_plus_240401.csv": "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,"
            "patient_report_date_order,report,age,sex,race,split\n"
            f'{image},train/a.dcm,Frontal,AP,patient42142,5,"NARRATIVE:\nRadiograph, chest",61,Female,White,train\n',
            "report_fixed.json": json.dumps(labelled) + "\n",
            place: "x",
        }
    )
    (label,) = ward.landed("--layout", "chexpert-plus", "--official-split").values()
    assert label.name == place
    assert (label.patient_id, label.label, label.view, label.sex, label.age) == (
        "patient42142",
        "pneumonia",
        "AP",
        "F",
        61,
    )
    assert "NARRATIVE" not in str(ward.table), "reports stay where they are"


@pytest.mark.parametrize("labeller", ["chexpert", "negbio"])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_mimic_cxr_jpg(ward: Ward, labeller: str, end: str) -> None:
    films = {
        "02aa804e-bde0afdd": ("PA", "train"),
        "174413ec-4ec4c1f7": ("LATERAL", "train"),
        "68b5c4b1-227d0485": ("AP", "test"),
    }
    study = {"02aa804e-bde0afdd": 50414267, "174413ec-4ec4c1f7": 50414267, "68b5c4b1-227d0485": 53911762}
    metadata = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate\n"
    metadata += "".join(
        f"{name},10000032,{study[name]},CHEST,{view},3056,2544,21800506\n" for name, (view, _) in films.items()
    )
    split = "dicom_id,study_id,subject_id,split\n"
    split += "".join(f"{name},{study[name]},10000032,{part}\n" for name, (_, part) in films.items())
    labels = MIMIC + "10000032,50414267,,,,,,,,,1.0,,,,,\n10000032,53911762,,,,,,,,,,,,1.0,,\n"
    tables = {"metadata": metadata, "split": split, labeller: labels}
    pack = gzip.compress if end else bytes
    ward.write({f"mimic-cxr-2.0.0-{name}.csv{end}": pack(text.encode()) for name, text in tables.items()})
    ward.write({f"files/p10/p10000032/s{study[name]}/{name}.jpg": name for name in films})
    assert told(
        ward.landed("--layout", "mimic-cxr-jpg", "--official-split"), "patient_id", "label", "view", "split"
    ) == {
        "02aa804e-bde0afdd.jpg": ("10000032", "normal", "PA", "train"),
        "68b5c4b1-227d0485.jpg": ("10000032", "pneumonia", "AP", "test"),
    }


@pytest.mark.parametrize("folder", ["", "0/", "images-224/"])
def test_padchest(ward: Ward, folder: str) -> None:
    columns = (
        "ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Report,Labels"
    )
    rows = (
        "1_a.png,0,20140915,s1,839860488694292331637988235681460987,1930.0,F,PA,torax,\"['pneumonia', 'infiltrates']\"",
        "2_b.png,0,20140915,s2,313572750430997347502932654319389875,1961,M,AP_horizontal,torax,['normal']",
        "3_c.png,0,20140915,s2,313572750430997347502932654319389875,1961,M,L,torax,['normal']",
        "4_d.png,0,20140915,s3,1,1990,M,PA,,\"['normal', 'costophrenic angle blunting']\"",
        "5_e.png,0,20140915,s3,1,1990,M,COSTAL,,['normal']",
    )
    ward.write({"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv": "\n".join([columns, *rows])})
    ward.write({folder + row.split(",")[0]: row for row in rows})
    assert told(ward.landed("--layout", "padchest"), "patient_id", "label", "view", "sex", "age") == {
        "1_a.png": ("839860488694292331637988235681460987", "pneumonia", "PA", "F", 84),
        "2_b.png": ("313572750430997347502932654319389875", "normal", "AP", "M", 53),
        "4_d.png": ("1", None, "PA", "M", 24),
    }


def test_vindr_of_physionet_takes_what_most_readers_say(ward: Ward) -> None:
    columns = "image_id,rad_id,Consolidation,Lung Opacity,Pneumonia,Other diseases,No finding\n"
    votes = "a,R1,0,1,1,0,0\na,R2,0,0,1,0,0\na,R3,0,0,0,0,1\nb,R1,0,0,0,0,1\nb,R2,0,0,0,0,1\nb,R3,0,0,0,0,1\n"
    votes += "c,R1,0,0,1,0,0\nc,R2,0,0,0,0,1\nc,R3,0,1,0,0,0\n"
    ward.write({"annotations/image_labels_train.csv": columns + votes})
    ward.write({"annotations/image_labels_test.csv": columns.replace("rad_id,", "") + "d,0,0,1,0,0\n"})
    ward.write({f"{'test' if name == 'd' else 'train'}/{name}.dicom": name for name in "abcd"})
    assert told(ward.landed("--layout", "vindr", "--official-split"), "patient_id", "label", "split") == {
        "a.dicom": ("a", "pneumonia", "train_val"),
        "b.dicom": ("b", "normal", "train_val"),
        "c.dicom": ("c", None, "train_val"),
        "d.dicom": ("d", "pneumonia", "test"),
    }


def test_vindr_of_kaggle_has_a_row_a_box(ward: Ward) -> None:
    rows = "a,No finding,14,R1,,,,\na,No finding,14,R2,,,,\na,No finding,14,R3,,,,\n"
    rows += (
        "b,Consolidation,4,R1,1,1,2,2\nb,Consolidation,4,R1,3,3,4,4\nb,No finding,14,R2,,,,\nb,No finding,14,R3,,,,\n"
    )
    ward.write({"train.csv": f"image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n{rows}"})
    ward.write({"train/a.dicom": "a", "train/b.dicom": "b"})
    assert told(ward.landed("--layout", "vindr"), "label") == {"a.dicom": ("normal",), "b.dicom": ("normal",)}


def test_cohen(ward: Ward) -> None:
    columns = (
        "patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,went_icu,in_icu,"
        "needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,neutrophil_count,lymphocyte_count,"
        "view,modality,date,location,folder,filename,doi,url,license,clinical_notes,other_notes,\n"
    )
    row = "{},0,{},{},{},Y,Y,N,N,N,N,Y,,,,,,,{},{},2020,Hanoi,{},{},,,,Mr Doe has a cough,,\n"
    rows = (
        ("2", "M", "65", "Pneumonia/Viral/COVID-19", "PA", "X-ray", "images", "a.jpg"),
        ("3", "F", "", "No Finding", "AP Supine", "X-ray", "images", "b.png"),
        ("4", "F", "31", "Tuberculosis", "PA", "X-ray", "images", "c.png"),
        ("5", "M", "50", "Pneumonia", "L", "X-ray", "images", "d.png"),
        ("6", "M", "50", "Pneumonia", "Axial", "CT", "volumes", "e.png"),
    )
    ward.write({"metadata.csv": columns + "".join(row.format(*cells) for cells in rows)})
    ward.write({f"{cells[6]}/{cells[7]}": cells[0] for cells in rows})
    assert told(ward.landed("--layout", "cohen"), "patient_id", "label", "view", "sex", "age") == {
        "a.jpg": ("2", "pneumonia", "PA", "M", 65),
        "b.png": ("3", "normal", "AP", "F", None),
        "c.png": ("4", None, "PA", "F", 31),
    }
    assert "cough" not in str(ward.table)
    assert "left out, modality CT: 1" in ward.land("--layout", "cohen").output


def test_shenzhen(ward: Ward) -> None:
    ward.write({"CXR_png/CHNCXR_0001_0.png": "1", "ClinicalReadings/CHNCXR_0001_0.txt": "male 45yrs\nnormal\n"})
    ward.write({"CXR_png/CHNCXR_0327_1.png": "2", "ClinicalReadings/CHNCXR_0327_1.txt": "female , 24yrs\n\nPTB"})
    ward.write({"mask/CHNCXR_0327_1_mask.png": "mask"})
    assert told(ward.landed("--layout", "shenzhen"), "patient_id", "label", "sex", "age") == {
        "CHNCXR_0001_0.png": ("CHNCXR_0001", "normal", "M", 45),
        "CHNCXR_0327_1.png": ("CHNCXR_0327", None, "F", 24),
    }
    assert "mask/CHNCXR_0327_1_mask.png" in ward.names


def test_montgomery(ward: Ward) -> None:
    reading = "Patient's Sex: F\nPatient's Age: 027Y\nnormal\n"
    ward.write({"CXR_png/MCUCXR_0001_0.png": "1", "ClinicalReadings/MCUCXR_0001_0.txt": reading})
    ward.write({f"ManualMask/{side}Mask/MCUCXR_0001_0.png": side for side in ("left", "right")})
    result = ward.land("--layout", "montgomery")
    assert "1 films, 1 patients, 2 masks" in result.output
    assert told(ward.landed("--layout", "montgomery"), "patient_id", "label", "sex", "age") == {
        "MCUCXR_0001_0.png": ("MCUCXR_0001", "normal", "F", 27)
    }


def test_folders(ward: Ward) -> None:
    ward.write({"train/Pneumonie/P7_a.png": "a", "test/Normal/P8_b.png": "b", "test/masks/P8_b.png": "mask"})
    options = ("--layout", "folders", "--patient", r"(P\d+)_", "--map", "label:Pneumonie=pneumonia", "--official-split")
    assert told(ward.landed(*options), "patient_id", "label", "split") == {
        "P7_a.png": ("P7", "pneumonia", "train"),
        "P8_b.png": ("P8", "normal", "test"),
    }
    assert "without a patient id in labels.csv: 2" in ward.land("--layout", "folders").output


def test_csv_with_a_map(ward: Ward) -> None:
    head = "Bild;Patient Nr;Diagnose;Geschlecht\n"
    ward.write({"films.csv": head + "B\\a.png;7;Pneumonie;w\nB\\b.png;8;o.B.;m\nB\\c.png;9;?;m\n"})
    ward.write({f"B/{name}.png": name for name in "abc"})
    columns = ("file=Bild", "patient_id=Patient Nr", "label=Diagnose", "sex=Geschlecht")
    maps = [text for each in (*columns, "label:Pneumonie=pneumonia", "label:o.B.=normal") for text in ("--map", each)]
    assert told(ward.landed("--layout", "csv", *maps), "patient_id", "label", "sex") == {
        "a.png": ("7", "pneumonia", "F"),
        "b.png": ("8", "normal", "M"),
        "c.png": ("9", None, "M"),
    }


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--layout", "nih"), "holds no Data_Entry_2017_v2020.csv or"),
        (("--layout", "kermany"), "below folders NORMAL and PNEUMONIA"),
        (("--layout", "cohen", "--official-split"), "has no division into training and test"),
        (("--layout", "csv", "--map", "file"), "neither OUR_COLUMN=THEIRS"),
        (("--official-split",), "need a --layout"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_copied(
    ward: Ward, options: tuple[str, ...], why: str
) -> None:
    ward.write({"a.png": "a"})
    result = ward.land(*options)
    assert result.exit_code == 1
    assert why in " ".join(result.output.split())
    assert not list(FileStore(ward.root).list_objects("landing"))
