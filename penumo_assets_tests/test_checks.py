"""Each asset check on manifests, objects and records written by hand: what it passes, and the offenders it shows."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dagster import AssetCheckEvaluation, AssetCheckSeverity, AssetSelection, DagsterInstance, asset, materialize
from dagster._core.storage.tags import PARTITION_NAME_TAG

from penumo_assets.checks import ASSET_CHECKS, MANIFEST_CHECKS, class_balance, duplicates, no_leakage
from penumo_assets.checks.identity import patient_identity
from penumo_assets.checks.objects import npz_contract
from penumo_assets.checks.preparation import preparation_reveals
from penumo_assets.checks.quality import intensity_drift, mask_plausibility, reject_rate
from penumo_assets.cohort.publish import Manifest, dump_manifest, manifest_key
from penumo_assets.definitions import build_definitions
from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.imaging.pack import load_npz
from penumo_assets.jobs.manifest import ManifestRow, StageOutput
from penumo_assets.jobs.pack.__main__ import Item, index_row
from penumo_assets.metrics.preparation import border_quantities
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage

RAW, MASKS, PREPROCESSED = MANIFEST_CHECKS


@dataclass
class Ward:
    """A store, and an instance that knows the cohorts written to it."""

    store: ObjectStore
    instance: DagsterInstance

    def write(self, cohort: str, rows: list[ManifestRow]) -> None:
        self.store.write(manifest_key(cohort), dump_manifest(Manifest(cohort).head, rows))
        self.instance.add_dynamic_partitions("cohort", [cohort])

    def judge(self, check: Any, cohort: str | None = "a", **config: Any) -> AssetCheckEvaluation:
        """What ``check`` says, of a cohort if it is asked by cohort."""
        (spec,) = check.check_specs

        @asset(name=spec.asset_key.to_user_string(), partitions_def=spec.partitions_def)
        def stand_in() -> None: ...

        result = materialize(
            [stand_in, check],
            selection=AssetSelection.checks(check),
            instance=self.instance,
            tags={PARTITION_NAME_TAG: cohort} if cohort and spec.partitions_def else None,
            resources={"storage": Storage(root=self.store.root_uri)},
            run_config={"ops": {check.op.name: {"config": config}}} if config else None,
            raise_on_error=False,
        )
        for event in result.all_events:
            if event.is_step_failure and event.step_failure_data.user_failure_data:
                raise LookupError(event.step_failure_data.user_failure_data.description)
        (evaluation,) = result.get_asset_check_evaluations()
        return evaluation


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    with DagsterInstance.ephemeral() as instance:
        yield Ward(Storage(root=str(tmp_path)).store, instance)


def row(name: str, **values: Any) -> ManifestRow:
    return ManifestRow(image_id=name, source=f"images/{name}.dcm", source_etag="e", source_bytes=1, **values)


def rejected(name: str, stage: str, code: str) -> ManifestRow:
    return row(name, status="rejected", stage=stage, code=code, reason=f"{code} it is")


def output(store: ObjectStore, key: str, data: bytes, **facts: Any) -> StageOutput:
    store.write(key, data)
    return StageOutput(key=key, sha256=hashlib.sha256(data).hexdigest(), fingerprint="f", facts=facts)


def offenders(evaluation: AssetCheckEvaluation) -> list[dict[str, Any]]:
    return [dict(record.data) for record in evaluation.metadata["offenders"].records]  # type: ignore[union-attr]


def test_every_check_says_what_it_asks_and_how_severe_it_is_and_has_its_assets_partitions() -> None:
    graph = build_definitions().resolve_asset_graph()
    for check in ASSET_CHECKS:
        (spec,) = check.check_specs
        assert spec.partitions_def == graph.get(spec.asset_key).partitions_def, spec.key
        assert spec.description, spec.key
        assert any(word in spec.description for word in ("Error:", "A warning:")), spec.key
        if spec.blocking:
            assert "Error:" in spec.description, spec.key


def test_tolerances_are_described_and_bounded_in_the_launchpad() -> None:
    fields = reject_rate.node_def.config_schema.config_type.fields
    assert fields["max_rate"].description
    assert fields["max_rate"].default_value == 0.2


def test_too_many_rejected_files_are_named_with_their_reason(ward: Ward) -> None:
    ward.write("a", [row("good"), rejected("bad", "raw", "truncated")])
    found = ward.judge(reject_rate)
    assert not found.passed
    assert found.severity is AssetCheckSeverity.WARN
    assert found.metadata["rate"].value == 0.5
    assert [item["file"] for item in offenders(found)] == ["images/bad.dcm"]
    assert ward.judge(reject_rate, max_rate=0.5).passed


def test_each_cohort_keeps_its_own_verdict(ward: Ward) -> None:
    ward.write("a", [rejected("bad", "raw", "truncated")])
    ward.write("b", [row("good")])
    for cohort, passes in (("a", False), ("b", True)):
        found = ward.judge(reject_rate, cohort)
        assert (found.passed, found.partition) == (passes, cohort)
    (key,) = reject_rate.check_keys
    kept = ward.instance.event_log_storage.get_asset_check_partition_info([key])
    verdicts = {info.partition_key: info.latest_execution_status.value for info in kept}
    assert verdicts == {"a": "FAILED", "b": "SUCCEEDED"}


def test_a_check_that_is_asked_about_no_cohort_says_what_to_do(ward: Ward) -> None:
    ward.write("a", [row("good")])
    for check in (reject_rate, patient_identity, intensity_drift, mask_plausibility, npz_contract, *MANIFEST_CHECKS):
        with pytest.raises(LookupError, match="materialize the one in question"):
            ward.judge(check, None)


def test_implausible_masks_and_fallbacks_count_alike(ward: Ward) -> None:
    whole = output(ward.store, "masks/a/whole.png", b"w", fallback="one lung")
    good = {f"good{n}": output(ward.store, f"masks/a/{n}.png", b"g") for n in range(2)}
    rows = [row(name, stages={"masks": stage}) for name, stage in good.items()]
    rows += [row("whole", stages={"masks": whole}), rejected("bad", "masks", "implausible_mask")]
    ward.write("a", [*rows, rejected("undecoded", "raw", "truncated")])
    found = ward.judge(mask_plausibility)
    assert not found.passed
    assert found.severity is AssetCheckSeverity.ERROR
    assert (found.metadata["rate"].value, found.metadata["masks"].value) == (0.5, 4)
    assert {item["file"]: item["outcome"] for item in offenders(found)} == {
        "images/whole.dcm": "the whole image was used",
        "images/bad.dcm": "rejected",
    }
    assert ward.judge(mask_plausibility, max_rate=0.5).passed


@pytest.mark.parametrize(("check", "stage"), [(RAW, "raw"), (MASKS, "masks"), (PREPROCESSED, "preprocessed")])
def test_manifest_and_objects_must_agree(ward: Ward, check: Any, stage: str) -> None:
    stages = [output(ward.store, f"{stage}/a/{name}.png", name.encode()) for name in ("kept", "lost", "changed")]
    ward.write("a", [row(item.key.split("/")[-1], stages={stage: item}) for item in stages])
    whole = ward.judge(check)
    assert whole.passed
    ward.store.write(f"{stage}/a/stray.png", b"s")
    stray = ward.judge(check)
    assert (stray.passed, stray.severity) == (False, AssetCheckSeverity.WARN)
    ward.store.delete([f"{stage}/a/lost.png"])
    ward.store.write(f"{stage}/a/changed.png", b"other bytes")
    found = ward.judge(check)
    assert (found.passed, found.severity) == (False, AssetCheckSeverity.ERROR)
    assert {item["file"].split("/")[-1]: item["problem"] for item in offenders(found)} == {
        "lost.png": "missing",
        "changed.png": "its bytes are not those that the manifest recorded",
        "stray.png": "no manifest names it",
    }
    unread = ward.judge(check, sample=0)
    assert {item["file"].split("/")[-1] for item in offenders(unread)} == {"lost.png", "stray.png"}


def test_a_tensor_must_load_as_the_contract_says(ward: Ward) -> None:
    good = npz_bytes(np.zeros((224, 224, 4), np.uint8))
    stages = [output(ward.store, "npz/a/good.npz", good), output(ward.store, "npz/a/bad.npz", b"no archive")]
    ward.write("a", [row(item.key, stages={"npz": item}) for item in stages])
    found = ward.judge(npz_contract)
    assert (found.passed, found.severity) == (False, AssetCheckSeverity.ERROR)
    (offender,) = offenders(found)
    assert offender["file"] == "npz/a/bad.npz"
    assert found.metadata["objects"].value == 2


def tensors(store: ObjectStore, cohort: str, bars: dict[str, int], count: int = 30) -> list[ManifestRow]:
    """Films of noise and lungs in their middle, those of a label with black bars of some height."""
    rows = []
    for label, bar in bars.items():
        for number in range(count):
            pixels = np.random.default_rng(number).integers(20, 255, (224, 224, 4)).astype(np.uint8)
            pixels[..., 3] = 0
            pixels[60:160, 30:190, 3] = 255
            pixels[: bar + number % 5, :, :3] = 0
            stage = output(store, f"npz/{cohort}/{label}{number}.npz", npz_bytes(pixels))
            stages = {"npz": stage}
            rows.append(row(f"{label}{number}", label=label, patient_id=f"{label}{number}", stages=stages))
    return rows


def test_black_bars_that_tell_classes_apart_are_named(ward: Ward) -> None:
    ward.write("even", tensors(ward.store, "even", {"normal": 0, "pneumonia": 0}))
    assert ward.judge(preparation_reveals, "even").passed
    barred = tensors(ward.store, "barred", {"normal": 3, "pneumonia": 0})
    ward.store.write(barred[0].stages["npz"].key, b"damaged: npz_contract says so")
    ward.write("barred", barred)
    found = ward.judge(preparation_reveals, "barred")
    assert (found.passed, found.severity) == (False, AssetCheckSeverity.WARN)
    assert found.metadata["reveals"].value == "bars and outline, bar_height"
    lines = [dict(record.data) for record in found.metadata["quantities"].records]  # type: ignore[union-attr]
    (line,) = [line for line in lines if line["quantity"] == "bar_height"]
    assert (line["images"], line["low"] > 0.55) == (59, True)
    assert ward.judge(preparation_reveals, "barred", max_auc=0.99).passed


def test_of_the_border_only_what_enhancement_added_is_judged(ward: Ward) -> None:
    """Films of pneumonia are brighter at the border: before any filter, or only after."""

    def films(cohort: str, film_too: bool) -> list[ManifestRow]:
        rows = tensors(ward.store, cohort, {"normal": 0, "pneumonia": 0})
        for number, item in enumerate(rows):
            brighter = 60 * (item.label == "pneumonia")
            before = load_npz(ward.store.read(item.stages["npz"].key))
            pixels = before.copy()
            pixels[:8, :, :3] = np.minimum(pixels[:8, :, :3] // 2 + brighter + number % 30, 255)
            ward.store.write(item.stages["npz"].key, npz_bytes(pixels))
            film = pixels if film_too else before
            facts = {"film_border": border_quantities(film[..., :3].mean(axis=2), film[..., 3] > 0)}
            item.stages["preprocessed"] = StageOutput(key="p", sha256="s", fingerprint="f", facts=facts)
        return rows

    for cohort, film_too in (("own", True), ("made", False)):
        ward.write(cohort, films(cohort, film_too))
        found = ward.judge(preparation_reveals, cohort)
        lines = [dict(record.data) for record in found.metadata["quantities"].records]  # type: ignore[union-attr]
        (line,) = [line for line in lines if line["quantity"] == "border_mean"]
        assert line["low"] > 0.55
        assert (line["added_low"] > 0.05, found.passed) == (not film_too, film_too)


def test_what_too_few_patients_reveal_is_not_judged(ward: Ward) -> None:
    ward.write("few", tensors(ward.store, "few", {"normal": 9, "pneumonia": 0}, count=9))
    ward.write("unlabelled", [row("x")])
    assert ward.judge(preparation_reveals, "few").passed
    assert ward.judge(preparation_reveals, "unlabelled").passed


def intensities(name: str, mean: float, count: int = 60) -> list[ManifestRow]:
    values = np.random.default_rng(len(name)).normal(mean, 10, count)
    return [row(f"{name}{n}", mean_intensity=float(value)) for n, value in enumerate(values)]


def test_a_cohort_of_another_brightness_is_named(ward: Ward) -> None:
    ward.write("a", intensities("a", 100))
    assert ward.judge(intensity_drift).passed  # nothing to compare with
    ward.write("bb", intensities("bb", 100))
    assert ward.judge(intensity_drift, "bb").passed
    ward.write("dark", intensities("dark", 60))
    found = ward.judge(intensity_drift, "dark")
    assert (found.passed, found.severity) == (False, AssetCheckSeverity.WARN)
    assert found.metadata["median"].value == pytest.approx(60, abs=5)
    assert found.metadata["others_images"].value == 120
    assert ward.judge(intensity_drift, "dark", max_psi=100.0).passed


def test_a_cohort_is_compared_with_a_bounded_number_of_others(ward: Ward) -> None:
    for number in range(5):
        ward.write(f"c{number}", intensities(f"c{number}", 100, 10))
    for _ in range(2):
        found = ward.judge(intensity_drift, "c0", compared_with=2)
        assert found.metadata["others_images"].value == 20


def pattern(picture: float) -> np.ndarray:
    """(224, 224) uint8: squares of chance; a number between two mixes their pictures."""
    low, share = int(picture), picture % 1
    first, second = (np.random.default_rng(number).integers(0, 255, (7, 7)) for number in (low, low + 1))
    return (first * (1 - share) + second * share).astype(np.uint8).repeat(32, 0).repeat(32, 1)


def write_training_set(store: ObjectStore, members: dict[str, list[tuple[str, float]]]) -> None:
    """A training set of (patient, picture) by split; the picture's number decides the pixels."""
    splits = {}
    for split, images in members.items():
        rows = []
        for position, (patient, picture) in enumerate(images):
            gray = pattern(picture)
            tensor = np.dstack([gray, gray, gray, np.zeros_like(gray)])
            file = f"a/{split}-{position}.npz"
            store.write(f"npz/{file}", npz_bytes(tensor))
            item = Item(
                file=file, image_id="x", patient_id=patient, cohort="a", label="normal", sha256=f"{picture}-{patient}"
            )
            rows.append(index_row(item, tensor, ["normal", "pneumonia"]))
        buffer = io.BytesIO()
        pd.DataFrame(rows).to_parquet(buffer)
        store.write(f"training_set/d/{split}/index.parquet", buffer.getvalue())
        splits[split] = {"images": len(images), "counts": {"normal": len(images)}}
    store.write_json("training_set/d/dataset.json", {"splits": splits, "classes": ["normal", "pneumonia"]})
    names = [f"{split}/index.parquet" for split in members]
    store.write_json("training_set/current.json", {"prefix": "training_set/d", "names": names, "digest": "d"})


def test_a_picture_under_two_patients_is_shown(ward: Ward) -> None:
    write_training_set(ward.store, {"train": [("p1", 1), ("p2", 2), ("p1", 1)], "test": [("p3", 3)]})
    assert ward.judge(duplicates).passed  # the same patient may have a picture twice
    write_training_set(ward.store, {"train": [("p1", 1), ("p2", 2)], "test": [("p3", 1)]})
    found = ward.judge(duplicates)
    assert (found.passed, found.severity) == (False, AssetCheckSeverity.WARN)
    (pair,) = offenders(found)
    assert {pair["image_a"], pair["image_b"]} == {"a/train-0.npz", "a/test-0.npz"}
    assert pair["identical"]
    assert found.metadata["across_splits"].value == 1
    assert str(found.metadata["pictures"].value).startswith("![pairs](data:image/jpeg;base64,")


def test_how_like_two_pictures_must_be_is_configurable(ward: Ward) -> None:
    write_training_set(ward.store, {"train": [("p1", 1), ("p2", 1.2), ("p3", 7)]})
    assert ward.judge(duplicates).passed
    (pair,) = offenders(ward.judge(duplicates, max_distance=12))
    assert {pair["image_a"], pair["image_b"]} == {"a/train-0.npz", "a/train-1.npz"}
    assert 2 < pair["distance"] <= 12


def test_a_patient_on_two_sides_is_leakage(ward: Ward) -> None:
    write_training_set(ward.store, {"train": [("p1", 1)], "test": [("p2", 2)]})
    assert ward.judge(no_leakage).passed
    write_training_set(ward.store, {"train": [("p1", 1)], "test": [("p1", 2)]})
    found = ward.judge(no_leakage)
    assert not found.passed
    assert [item["which"] for item in offenders(found)] == ["p1"]


def test_a_class_that_is_absent_is_too_rare(ward: Ward) -> None:
    write_training_set(ward.store, {"train": [("p1", 1)]})
    found = ward.judge(class_balance)
    assert not found.passed
    assert found.metadata["too_rare"].value == "train pneumonia"
    assert ward.judge(class_balance, min_share=0.0).passed


@pytest.mark.parametrize(("doubtful", "severity"), [(1, AssetCheckSeverity.WARN), (2, AssetCheckSeverity.ERROR)])
def test_films_of_a_doubtful_patient_are_named_and_many_stop_the_run(ward: Ward, doubtful: int, severity: Any) -> None:
    noted = [row(f"n{number}", label="normal", notes=["voi:lut", "patient_id:none"]) for number in range(doubtful)]
    fine = [row(f"f{number}", label="normal", notes=["voi:lut"]) for number in range(20 - doubtful)]
    ward.write("a", [*noted, *fine, row("unlabelled", notes=["patient_id:none"]), rejected("r", "raw", "corrupt")])
    evaluation = ward.judge(patient_identity, "a", max_rate=0.05)
    assert (evaluation.passed, evaluation.severity) == (False, severity)
    assert [item["notes"] for item in offenders(evaluation)] == ["patient_id:none"] * doubtful
    assert evaluation.metadata["labelled"].value == 20


def test_films_whose_patients_are_certain_pass(ward: Ward) -> None:
    ward.write("a", [row("a", label="normal"), row("unlabelled", notes=["patient_id:none"])])
    assert ward.judge(patient_identity, "a").passed
