"""The whole graph on phantoms, through real jobs and a real Dagster instance; then what stands in the store."""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from dagster import AssetCheckSeverity, AssetKey, DagsterInstance, ExecuteInProcessResult

from penumo_assets.cli.main import main
from penumo_assets.cli.predict_files import load_endpoint
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.imaging.pack import load_npz
from penumo_assets.jobs.infer.handler import input_fn, predict_fn
from penumo_assets.phantoms import write_cohort
from penumo_assets.phantoms.cohort import PLANTED_BIRTH_DATE, PLANTED_NAME
from penumo_assets.resources.compute.local.runner import LocalJobRunner
from penumo_assets.resources.storage.root import Storage
from penumo_assets_tests.house import House, failure_of, open_house
from penumo_assets_tests.resources.s3_server import running_s3

STAGES = ("raw_images", "lung_masks", "preprocessed_images", "npz_tensors")
KEEP = {"file_names": "keep"}  # phantoms' names: the default, which replaces them, is tested in trust/
BOTH = {"prepare_cohort": {"npz": {"filename": "{patient_id}_{image_id}"}, "labels": KEEP}}
TRAINING = {"trained_model": {"epochs": 1, "warmup_epochs": 0, "resolution": 32, "batch_size": 16, "num_workers": 0}}
OFF = dict.fromkeys(("min_roc_auc_low", "min_sensitivity", "max_ece", "min_subgroup_roc_auc"))
LENIENT = {"evaluation_report": {"bootstrap": 50, "gates": OFF}}


def metadata_of(result: ExecuteInProcessResult, asset: str) -> dict:
    (event,) = result.asset_materializations_for_node("prepare_cohort" if asset in STAGES else asset) or [None]
    return {name: getattr(item, "value", None) for name, item in event.metadata.items()}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def prepared(house: House) -> House:
    for seed, cohort in enumerate(("dicom", "png")):
        write_cohort(house.folder / cohort, cohort, patients=22, seed=seed, dicom=cohort == "dicom")
        house.land(cohort, house.folder / cohort)
        house.materialize(*STAGES, partition=cohort, config=BOTH)
    return house


@pytest.fixture(scope="module")
def trained(prepared: House) -> House:
    prepared.materialize("training_set", config={"training_set": {"dataset": {"test_fraction": 0.3}}})
    for architecture in ("resnet34", "resnet50"):
        prepared.materialize("trained_model", partition=architecture, config=TRAINING)
        prepared.materialize("evaluation_report", partition=architecture, config=LENIENT)
    prepared.materialize("champion_model")
    prepared.materialize("predictions", partition="dicom")
    return prepared


def test_every_accepted_image_has_one_valid_tensor(prepared: House) -> None:
    for cohort in ("dicom", "png"):
        rows = read_manifest(prepared.store, cohort)
        landed = list((prepared.folder / cohort / "images").iterdir())
        assert len(rows) == len(landed)
        accepted = [row for row in rows if row.status == "accepted"]
        keys = {row.stages["npz"].key for row in accepted}
        assert keys == {info.key for info in prepared.store.list_objects(f"npz/{cohort}")}
        tensor = load_npz(prepared.store.read(accepted[0].stages["npz"].key))
        assert tensor[..., 3].mean() > 20
        assert tensor[..., 0].std() > 10


def test_broken_files_are_rejected_by_name_and_the_cohort_goes_on(prepared: House) -> None:
    for cohort in ("dicom", "png"):
        rejected = {row.source: row.code for row in read_manifest(prepared.store, cohort) if row.status == "rejected"}
        assert rejected.items() >= {
            ("images/broken_truncated.png", "truncated"),
            ("images/broken_text.dcm", "not_an_image"),
        }


def test_images_and_rejected_files_add_up_on_every_page(prepared: House) -> None:
    for asset in STAGES:
        event = prepared.instance.get_latest_materialization_event(AssetKey(asset))
        assert event is not None
        assert event.asset_materialization is not None
        shown = {name: item.value for name, item in event.asset_materialization.metadata.items()}
        assert shown["dagster/row_count"] + shown["rejected"] == shown["files"], asset
        assert len(shown["rejected_files"].records) == shown["rejected"]


def test_no_page_shows_more_than_four_decimals(trained: House) -> None:
    assets = ("npz_tensors", "trained_model", "evaluation_report", "champion_model", "predictions")
    floats = 0
    for asset in assets:
        event = trained.instance.get_latest_materialization_event(AssetKey(asset))
        assert event is not None
        assert event.asset_materialization is not None
        for name, item in event.asset_materialization.metadata.items():
            cells = [cell for record in getattr(item, "records", ()) for cell in record.data.values()]
            for value in (*cells, getattr(item, "value", None)):
                if isinstance(value, float):
                    assert value == round(value, 4), f"{asset}: {name}"
                    floats += 1
    assert floats > 20


def test_a_run_is_found_by_the_name_of_its_job(prepared: House) -> None:
    tags = [run.tags.get("penumo/job", "") for run in prepared.instance.get_runs()]
    assert any(tag.startswith("penumo-prepare-dicom-") for tag in tags)


def test_masks_agree_with_the_ground_truth(prepared: House) -> None:
    rows = read_manifest(prepared.store, "png")
    dices = [row.stages["masks"].facts["dice"] for row in rows if "masks" in row.stages]
    assert len(dices) >= 22
    assert sum(dices) / len(dices) > 0.85


def test_a_second_materialization_computes_nothing(prepared: House) -> None:
    result = prepared.materialize(*STAGES, partition="png", config=BOTH)
    events = result.asset_materializations_for_node("prepare_cohort")
    assert [event.metadata["computed"].value for event in events] == [0, 0, 0, 0]
    assert all("job_name" not in event.metadata for event in events)


def contents(house: House) -> dict[str, dict[str, str]]:
    """Digest of each stage's output by landed file: the folder of an object tells its publication, not its content."""
    rows = read_manifest(house.store, "png")
    return {row.source: {stage: output.sha256 for stage, output in row.stages.items()} for row in rows}


def test_a_stage_alone_gives_the_bytes_of_the_whole_pass(prepared: House) -> None:
    before = contents(prepared)
    masked = {"prepare_cohort": BOTH["prepare_cohort"] | {"enhance": {"apply_mask": True}}}
    prepared.materialize("preprocessed_images", "npz_tensors", partition="png", config=masked)
    changed = contents(prepared)
    prepared.materialize("preprocessed_images", partition="png", config=BOTH)
    prepared.materialize("npz_tensors", partition="png", config=BOTH)
    accepted = [source for source, stages in before.items() if "npz" in stages]
    assert all(changed[source]["npz"] != before[source]["npz"] for source in accepted)
    assert contents(prepared) == before


def test_data_versions_follow_the_content(prepared: House) -> None:
    record = prepared.instance.get_latest_materialization_event(AssetKey("npz_tensors"))
    assert record is not None
    tags = record.asset_materialization.tags or {}
    assert len(tags["dagster/data_version"]) == 64


def test_no_name_or_birth_date_leaves_ingest(trained: House) -> None:
    planted = [PLANTED_NAME, PLANTED_NAME.split("^")[0] + " " + PLANTED_NAME.split("^")[1], PLANTED_BIRTH_DATE]
    for path in (trained.folder / "root").rglob("*"):
        if path.is_file() and "landing" not in path.parts:
            data = path.read_bytes()
            assert not any(text.encode() in data for text in planted), path.name
    ids = {row.patient_id for row in read_manifest(trained.store, "dicom") if row.patient_id}
    assert all(patient.startswith("p-") for patient in ids)


def test_no_job_leaves_scratch_or_outputs_behind(trained: House) -> None:
    assert list(trained.store.list_objects("jobs")) == []
    assert not any((trained.folder / "root" / "scratch").iterdir())


def test_the_training_set_holds_every_labelled_tensor_once(trained: House) -> None:
    record = trained.store.read_json("training_set/current.json")
    frames = [
        pd.read_parquet(io.BytesIO(trained.store.read(f"{record['prefix']}/{split}/index.parquet")))
        for split in ("train", "validation", "test")
    ]
    index = pd.concat(frames)
    rows = [row for cohort in ("dicom", "png") for row in read_manifest(trained.store, cohort)]
    labelled = {row.image_id for row in rows if row.label and "npz" in row.stages}
    assert set(index["image_id"]) == labelled
    assert len(index) == len(labelled)
    assert sum(frame["patient_id"].nunique() for frame in frames) == index["patient_id"].nunique()


def test_a_second_training_set_reads_only_new_tensors(trained: House) -> None:
    record = trained.store.read_json("training_set/current.json")
    dataset = {"dataset": {"test_fraction": 0.3}}
    whole = trained.materialize("training_set", config={"training_set": dataset | {"incremental": False}})
    again = trained.materialize("training_set", config={"training_set": dataset})
    assert metadata_of(whole, "training_set")["taken_from_previous_set"] == 0
    metadata = metadata_of(again, "training_set")
    assert metadata["taken_from_previous_set"] == metadata["dagster/row_count"]
    assert metadata["digest"] == metadata_of(whole, "training_set")["digest"] == record["digest"]


def test_reports_are_whole_and_say_that_these_are_phantoms(trained: House) -> None:
    for architecture in ("resnet34", "resnet50"):
        record = trained.store.read_json(f"reports/{architecture}/current.json")
        report = json.loads(trained.store.read(f"{record['prefix']}/report.json"))
        page = trained.store.read(f"{record['prefix']}/report.html").decode()
        assert report["performance"]["test"]["roc_auc"]["value"] is not None
        assert "phantom" in page.lower()
        assert "not a medical device" in page.lower()


def test_the_champion_is_registered_with_its_run(trained: House) -> None:
    from mlflow import MlflowClient

    champion = trained.store.read_json("models/champion.json")
    client = MlflowClient(trained.resources["tracking"].tracking_uri)
    version = client.get_model_version_by_alias("pneumonia-classifier", "champion")
    assert str(version.version) == champion["version"]
    assert version.run_id == champion["model"]["mlflow_run_id"]
    run = client.get_run(version.run_id)
    assert "validation_roc_auc" in run.data.metrics
    above = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert above.data.tags["dagster_run_id"] == run.data.tags["penumo.dagster_run_id"]
    assert above.info.status == "FINISHED"
    assert run.data.tags["penumo.report"] in version.description


def test_the_report_is_on_the_run_that_trained_the_model(trained: House) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(trained.resources["tracking"].tracking_uri)
    for architecture in ("resnet34", "resnet50"):
        record = trained.store.read_json(f"reports/{architecture}/current.json")
        run = client.get_run(record["model"]["mlflow_run_id"])
        for name in ("test_specificity", "test_pr_auc", "dice_mean"):
            for end in ("", "_low", "_high"):
                assert run.data.metrics.get(f"{name}{end}") == record["values"][f"{name}{end}"], name
        page = Path(client.download_artifacts(run.info.run_id, run.data.tags["penumo.report"]))
        assert page.read_bytes() == trained.store.read(f"{record['prefix']}/report.html")
    shown = trained.instance.get_latest_materialization_event(AssetKey("evaluation_report")).asset_materialization
    assert f"/runs/{run.info.run_id}?" in shown.metadata["mlflow_run"].value


def test_every_tensor_gets_a_prediction(trained: House) -> None:
    record = trained.store.read_json("predictions/dicom/current.json")
    table = pd.read_parquet(io.BytesIO(trained.store.read(f"{record['prefix']}/predictions.parquet")))
    rows = [row for row in read_manifest(trained.store, "dicom") if "npz" in row.stages]
    assert set(table["image_id"]) == {row.image_id for row in rows}
    assert table["probability_pneumonia"].between(0, 1).all()
    assert table["probability_pneumonia"].nunique() > 1


def test_the_documented_columns_are_those_of_the_files(trained: House) -> None:
    dataset, predictions = (
        trained.store.read_json(f"{name}/current.json") for name in ("training_set", "predictions/dicom")
    )
    for record, name, asset in (
        (dataset, "train/index.parquet", "training_set"),
        (predictions, "predictions.parquet", "predictions"),
    ):
        written = pd.read_parquet(io.BytesIO(trained.store.read(f"{record['prefix']}/{name}")))
        event = trained.instance.get_latest_materialization_event(AssetKey(asset))
        assert event is not None
        assert event.asset_materialization is not None
        schema = event.asset_materialization.metadata["dagster/column_schema"].value
        assert [column.name for column in schema.columns] == list(written.columns)
        assert all(column.description for column in schema.columns)


def test_asset_checks_pass_and_see_a_lost_tensor(trained: House) -> None:
    result = trained.materialize(*STAGES, partition="dicom", config=BOTH)
    passed = {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}
    names = (
        "reject_rate",
        "patient_identity",
        "mask_plausibility",
        "manifest_agrees",
        "npz_contract",
        "preparation_reveals",
        "intensity_drift",
    )
    assert passed == dict.fromkeys(names, True)
    key = next(row.stages["npz"].key for row in read_manifest(trained.store, "dicom") if "npz" in row.stages)
    data = trained.store.read(key)
    trained.store.delete([key])
    try:
        result = trained.materialize(*STAGES, partition="dicom", config=BOTH, fails=True)
    finally:
        trained.store.write(key, data)
    passed = {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}
    assert not passed["npz_contract"]


def test_a_failed_gate_fails_its_architectures_run_and_leaves_the_other_to_win(trained: House) -> None:
    """A blocking check stops the run of the partition; choosing among the reports is up to champion_model."""
    before = trained.store.read_json("models/champion.json")["architecture"]
    other = {"resnet34": "resnet50", "resnet50": "resnet34"}[before]
    strict = {"evaluation_report": {"bootstrap": 50, "gates": {**OFF, "beat_shortcuts": True}}}  # nobody's
    result = trained.materialize("evaluation_report", partition=before, config=strict, fails=True)
    evaluated = result.get_asset_check_evaluations()
    failed = {item.check_name for item in evaluated if item.severity is AssetCheckSeverity.ERROR and not item.passed}
    assert failed == {"gate_beat_shortcuts"}
    assert "gate_min_specificity" in {item.check_name for item in evaluated if not item.passed}, "not asked for"
    trained.materialize("champion_model")
    champion = trained.store.read_json("models/champion.json")
    assert (champion["architecture"], champion["previous"]) == (other, "1")
    trained.materialize("evaluation_report", partition=before, config=LENIENT)
    challenger = trained.store.read_json(f"reports/{before}/current.json")
    comparison = trained.store.read_json(f"{challenger['prefix']}/report.json")["comparison"]
    assert comparison["images"] == challenger["values"]["test_images"]


@pytest.mark.parametrize("coverage", [1.0, 0.5])
def test_batch_endpoint_and_command_give_one_answer(trained: House, coverage: float, tmp_path: Path) -> None:
    """Raw DICOM bytes through the served archive and through the command, against the row of predictions.parquet that
    the job wrote; with a model that answers every film, and with one that withholds answers."""
    if coverage < 1:
        judged = {"evaluation_report": LENIENT["evaluation_report"] | {"coverage": coverage}}
        for architecture in ("resnet34", "resnet50"):  # whichever wins
            trained.materialize("evaluation_report", partition=architecture, config=judged)
        trained.materialize("champion_model")
    trained.materialize("predictions", partition="dicom")
    record = trained.store.read_json("predictions/dicom/current.json")
    table = pd.read_parquet(io.BytesIO(trained.store.read(f"{record['prefix']}/predictions.parquet")))
    table = table.set_index("image_id")
    assert ("not decided" in set(table["decision"])) is (coverage < 1)
    endpoint = load_endpoint(trained.store, record["model_version"])
    films = {row.image_id: row for row in read_manifest(trained.store, "dicom") if "npz" in row.stages}
    # Four films, of each decision one at least.
    chosen = list(dict.fromkeys([*table.groupby("decision").head(1).index, *table.index]))[:4]
    for image_id in chosen:
        data = trained.store.read(f"landing/dicom/{films[image_id].source}")
        (tmp_path / f"{image_id}.dcm").write_bytes(data)
        command = CliRunner().invoke(main, ["predict", "--json", str(tmp_path / f"{image_id}.dcm")])
        assert command.exit_code == 0, command.output
        for found in (predict_fn(input_fn(data, "application/dicom"), endpoint), json.loads(command.stdout)):
            for kind in ("probability", "calibrated_probability"):
                values = found["probabilities" if kind == "probability" else "calibrated_probabilities"]
                assert values["pneumonia"] == pytest.approx(table.loc[image_id, f"{kind}_pneumonia"], abs=1e-5)
            assert found["decision"] == table.loc[image_id, "decision"]
            assert found["quality_flags"] == [flag for flag in table.loc[image_id, "quality_flags"].split(";") if flag]
            assert found["model_version"] == table.loc[image_id, "model_version"]


def test_predictions_say_how_far_the_cohort_is_from_the_training_data(trained: House) -> None:
    result = trained.materialize("predictions", partition="png", config={"predictions": {"overlay": True}})
    (check,) = [item for item in result.get_asset_check_evaluations() if item.check_name == "drift"]
    rows = {row.data["feature"]: row.data for row in check.metadata["population_stability"].records}
    assert set(rows) == {"probability_pneumonia", "mean_intensity", "aspect_ratio", "megapixels", "file_bytes"}
    assert check.passed is not any(row["moved"] for row in rows.values())
    metadata = metadata_of(result, "predictions")
    assert metadata["overlay_preview"].startswith("![lung contour and Grad-CAM](data:image/jpeg;base64,")
    assert metadata["psi_mean_intensity"] == rows["mean_intensity"]["index"]
    record = trained.store.read_json("predictions/png/current.json")
    overlays = [name for name in record["names"] if name.startswith("overlays/")]
    assert len(overlays) == metadata["overlays"] == metadata["dagster/row_count"]


def test_a_cohort_is_left_out_and_judged_by_a_model_of_the_others(trained: House) -> None:
    """What is recorded of models and training sets stays as it is."""
    records = ("training_set/current.json", "models/champion.json", "models/resnet34/current.json")
    before = [trained.store.read(key) for key in records]
    refused = trained.materialize("external_validation", partition="png", fails=True)
    assert "png trained" in failure_of(refused)
    model, judged = TRAINING["trained_model"], LENIENT["evaluation_report"]
    model = model | {"preset": "quick"}
    config = {"external_validation": {"leave_out": True, "train": model, "evaluation": judged}}
    metadata = metadata_of(
        trained.materialize("external_validation", partition="png", config=config), "external_validation"
    )
    record = trained.store.read_json("external_validation/png/current.json")
    report = trained.store.read_json(f"{record['prefix']}/report.json")
    assert (report["external"], report["data"]["test_looks"]) == ("png", 1)
    assert set(report["data"]["splits"]["test"]["groups"]["cohort"]) == {"png"}
    assert set(report["data"]["splits"]["train"]["groups"]["cohort"]) == {"dicom"}
    assert next(row for row in report["checklist"] if row["item"] == 33)["section"] == "intended-use"
    client = trained.resources["tracking"].client()
    run = client.get_run(metadata["mlflow_run"].split("]")[0][1:])
    assert run.data.metrics["external/png/test_accuracy"] == record["values"]["test_accuracy"]
    assert run.data.params["preset"] == "quick"
    assert run.data.params["epochs"] == str(model["epochs"])  # what is set beside a preset wins
    assert run.data.tags["penumo.report.png"].startswith("external/png/")
    assert "penumo.report" not in run.data.tags  # which is for the model's own test split
    assert metadata["test_images"] == sum(
        row.label is not None and "npz" in row.stages for row in read_manifest(trained.store, "png")
    )
    assert [trained.store.read(key) for key in records] == before


def test_a_cohort_without_a_usable_image_names_itself_and_its_reasons(house: House) -> None:
    folder = house.folder / "hopeless" / "images"
    folder.mkdir(parents=True)
    (folder / "empty.png").touch()
    (folder / "text.dcm").write_text("not a film")
    house.land("hopeless", folder.parent)
    result = house.materialize(*STAGES, partition="hopeless", fails=True)
    message = failure_of(result)
    assert "'hopeless' has no usable image" in message
    assert "empty: 1" in message
    assert "not_an_image: 1" in message


def test_dicom_files_without_a_key_are_refused_in_words(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENUMO_DEID_KEY")
    write_cohort(house.folder / "keyless", "keyless", patients=2, seed=9, dicom=True)
    house.land("keyless", house.folder / "keyless")
    result = house.materialize(*STAGES, partition="keyless", fails=True)
    assert "PENUMO_DEID_KEY is not set" in failure_of(result)
    assert "PENUMO_DEID_KEY" not in os.environ


@pytest.mark.slow
def test_a_cohort_on_s3_becomes_the_same_tensors(prepared: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with running_s3() as server, DagsterInstance.ephemeral() as instance:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        server.start_over("films", "us-east-1")
        storage = Storage(root="s3://films/penumo")
        jobs = LocalJobRunner(storage=storage, scratch=str(prepared.folder / "scratch-s3"))
        bucket = House(instance, prepared.resources | {"storage": storage, "jobs": jobs}, prepared.folder)
        bucket.land("png", prepared.folder / "png")
        bucket.materialize(*STAGES, partition="png", config=BOTH)
        assert contents(bucket) == contents(prepared)
        tensors = [row.stages["npz"] for row in read_manifest(bucket.store, "png") if "npz" in row.stages]
        assert all(hashlib.sha256(bucket.store.read(item.key)).hexdigest() == item.sha256 for item in tensors)
