"""The whole graph on AWS settings: the same assets, through HTTP, make what the embedded profile makes."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from dagster import AssetKey, DagsterInstance
from mlflow import MlflowClient

from penumo_assets.cli.demo import NO_GATES
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.jobs.manifest import STAGE_ASSETS
from penumo_assets.phantoms import write_cohort
from penumo_assets.resources.profile import aws_resources
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.emulator.server import wait_for
from penumo_assets_tests.house import House, open_house

KEY = "a key for phantoms only"  # as in the embedded house: the same patients get the same pseudonyms
BOTH = {"prepare_cohort": {"npz": {"filename": "{patient_id}_{image_id}"}}}
TRAINING = {"epochs": 1, "warmup_epochs": 0, "resolution": 32, "batch_size": 16, "num_workers": 0}
EVALUATION = {"bootstrap": 50, "gates": NO_GATES}
PATIENTS = 26

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "dicom"
    write_cohort(folder, "dicom", patients=PATIENTS, seed=3, dicom=True)
    return folder


@pytest.fixture(scope="module")
def settings(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installation on AWS, and nothing of this one."""
    secret = emulator.client("secretsmanager").create_secret(Name="penumo/deid-key", SecretString=KEY)
    folder = tmp_path_factory.mktemp("mlflow")
    return emulator.environment("whole-graph") | {
        "PENUMO_DEID_KEY": KEY,
        "PENUMO_DEID_KEY_SECRET_ARN": secret["ARN"],
        "PENUMO_PREPARE_INSTANCES": "2",
        "PENUMO_POLL_SECONDS": "0.1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "PENUMO_ROOT": "s3://whole-graph/penumo",
    }


@pytest.fixture(scope="module")
def aws(cohort: Path, settings: dict[str, str]) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.ephemeral() as instance:
        for name, value in settings.items():
            patch.setenv(name, value)
        house = House(instance, aws_resources(), cohort.parent)
        make_report(house, cohort)
        house.materialize("champion_model")
        house.materialize("predictions", partition="dicom")
        yield house


@pytest.fixture(scope="module")
def embedded(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("embedded"), processes=True) as house:
        make_report(house, cohort)
        yield house


def make_report(house: House, cohort: Path) -> None:
    house.land("dicom", cohort)
    house.materialize(*STAGE_ASSETS, partition="dicom", config=BOTH)
    house.materialize("training_set", config={"training_set": {"dataset": {"test_fraction": 0.3}}})
    house.materialize("trained_model", partition="resnet34", config={"trained_model": TRAINING})
    house.materialize("evaluation_report", partition="resnet34", config={"evaluation_report": EVALUATION})


def test_every_tensor_has_the_same_bytes(aws: House, embedded: House) -> None:
    there, here = read_manifest(aws.store, "dicom"), read_manifest(embedded.store, "dicom")
    assert [(row.source, row.code, row.reason) for row in there] == [(row.source, row.code, row.reason) for row in here]
    keys = [row.stages["npz"].key for row in here if "npz" in row.stages]
    assert len(keys) >= PATIENTS
    assert [row.stages["npz"].key for row in there if "npz" in row.stages] == keys
    assert [aws.store.read(key) for key in keys] == [embedded.store.read(key) for key in keys]


def test_models_measure_the_same(aws: House, embedded: House) -> None:
    values = [house.store.read_json("models/resnet34/current.json")["values"] for house in (aws, embedded)]
    for name in ("validation_loss", "validation_roc_auc", "test_loss", "dataset_digest", "train_images"):
        assert values[0][name] == pytest.approx(values[1][name], abs=1e-4), name
    reports = []
    for house in (aws, embedded):
        record = house.store.read_json("reports/resnet34/current.json")
        reports.append(json.loads(house.store.read(f"{record['prefix']}/report.json")))
    roc_auc = [report["performance"]["test"]["roc_auc"]["value"] for report in reports]
    assert roc_auc[0] == pytest.approx(roc_auc[1], abs=1e-6)


def test_the_report_is_on_the_run_that_trained_the_model(aws: House, settings: dict[str, str]) -> None:
    record = aws.store.read_json("reports/resnet34/current.json")
    run = MlflowClient(settings["MLFLOW_TRACKING_URI"]).get_run(record["model"]["mlflow_run_id"])
    assert run.data.metrics["test_specificity"] == record["values"]["test_specificity"]
    assert run.data.tags["penumo.report"].endswith("/report.html")


def test_two_instances_compute_each_image_once(aws: House, emulator: Emulator) -> None:
    (request,) = [call for call in emulator.calls("CreateProcessingJob") if "prepare" in call.name]
    assert request.params["ProcessingResources"]["ClusterConfig"]["InstanceCount"] == 2
    events = emulator.client("logs").filter_log_events(
        logGroupName="/aws/sagemaker/ProcessingJobs", logStreamNamePrefix=f"{request.name}/", startTime=0
    )["events"]
    shares = [
        event["message"].split("prepared ")[1].split()[0] for event in events if "INFO prepared" in event["message"]
    ]
    rows = [row for row in read_manifest(aws.store, "dicom") if row.source_sha256]
    assert len(shares) == 2
    assert all(int(share) > 0 for share in shares)
    assert sum(map(int, shares)) == len([row for row in read_manifest(aws.store, "dicom") if row.stage != "landing"])
    assert len({row.image_id for row in rows}) == len(rows)


def test_every_job_ran_on_sagemaker_and_left_nothing_behind(aws: House, emulator: Emulator) -> None:
    programs = {
        call.params["AppSpecification"]["ContainerArguments"][1] for call in emulator.calls("CreateProcessingJob")
    }
    assert programs == {"prepare", "pack", "evaluate", "infer"}
    assert len(emulator.calls("CreateTrainingJob")) == 1
    assert not [*aws.store.list_objects("jobs"), *aws.store.list_objects("inputs")]


def test_a_materialization_leads_to_its_job(aws: House, emulator: Emulator) -> None:
    event = aws.instance.get_latest_materialization_event(AssetKey("trained_model"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert metadata["job_name"].value in str(metadata["job_url"].value)
    assert metadata["job_status"].value == "Completed"
    assert metadata["billable_seconds"].value >= 1


def test_every_image_got_a_prediction(aws: House) -> None:
    record = aws.store.read_json("predictions/dicom/current.json")
    table = pd.read_parquet(io.BytesIO(aws.store.read(f"{record['prefix']}/predictions.parquet")))
    assert set(table["image_id"]) == {row.image_id for row in read_manifest(aws.store, "dicom") if "npz" in row.stages}


def test_the_key_of_the_pseudonyms_stands_in_no_request(aws: House, emulator: Emulator) -> None:
    assert KEY not in json.dumps([call.params for call in emulator.requests])


LAUNCH = """
from dagster import AssetSelection, DagsterInstance, materialize
from penumo_assets.definitions import ASSETS
from penumo_assets.resources.profile import profile_resources

materialize(
    ASSETS,
    selection=AssetSelection.assets("trained_model"),
    partition_key="resnet34",
    instance=DagsterInstance.get(),
    resources=profile_resources(),
    run_config={"ops": {"trained_model": {"config": %r}}},
)
"""


def test_a_run_that_was_killed_pays_for_its_training_once(
    aws: House, emulator: Emulator, settings: dict[str, str], tmp_path: Path
) -> None:
    before = len(emulator.calls("CreateTrainingJob"))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)} | settings
    command = [sys.executable, "-c", LAUNCH % (TRAINING | {"seed": 5, "epochs": 3})]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(emulator.calls("CreateTrainingJob")) > before or first.poll() is not None, 60)
        name = emulator.calls("CreateTrainingJob")[-1].name
        describe = emulator.client("sagemaker").describe_training_job
        wait_for(lambda: describe(TrainingJobName=name)["SecondaryStatus"] == "Training", 30)
    finally:
        first.kill()
        first.wait()
    time.sleep(0.2)
    assert describe(TrainingJobName=name)["TrainingJobStatus"] == "InProgress"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Attached to job {name}" in done.stderr or f"Job {name} has finished before" in done.stderr
    assert [call.name for call in emulator.calls("CreateTrainingJob")[before:]] == [name]
    assert aws.store.read_json("models/resnet34/current.json")["job_name"] == name
