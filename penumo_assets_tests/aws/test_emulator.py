"""The emulator refuses what SageMaker refuses: a runner that passes here has not passed a blank cheque."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.emulator.server import IMAGE, wait_for
from penumo_assets_tests.aws.job_requests import ended, processing, source, training

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sagemaker(emulator: Emulator) -> Any:
    emulator.environment("rules")
    return emulator.client("sagemaker")


def test_a_name_is_taken_for_ever(sagemaker: Any) -> None:
    sagemaker.create_processing_job(**processing("once"))
    assert ended(sagemaker, "once")["ProcessingJobStatus"] == "Completed"
    with pytest.raises(ClientError, match="unique"):
        sagemaker.create_processing_job(**processing("once"))


def test_a_key_for_a_local_disk_is_refused(sagemaker: Any) -> None:
    disk = {"InstanceCount": 1, "InstanceType": "ml.g5.xlarge", "VolumeSizeInGB": 10, "VolumeKmsKeyId": "key"}
    with pytest.raises(ClientError, match="local storage"):
        sagemaker.create_training_job(**training("local-disk", ResourceConfig=disk))
    with pytest.raises(ClientError, match="local storage"):
        sagemaker.create_processing_job(**processing("local-disk", ProcessingResources={"ClusterConfig": disk}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ProcessingJobName": "under_score"}, "does not match"),
        ({"ProcessingJobName": "x" * 64}, "length 64"),
        ({"Environment": {"A": "x" * 257}}, "length 257"),
        ({"Environment": {"A-B": "x"}}, "does not match"),
        ({"RoleArn": "arn:aws:iam::1:role/too-short-an-account"}, "does not match"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 10**7}}, "value 10000000"),
        ({"Tags": [{"Key": "a", "Value": "b"}, {"Key": "a", "Value": "c"}]}, "unique"),
        ({"Tags": [{"Key": "a", "Value": "(b)"}]}, "does not match"),
        ({"ProcessingInputs": [source("s3://rules/m", f"n{number}") for number in range(11)]}, "length 11"),
        ({"ProcessingInputs": [source("s3://rules/m"), source("s3://rules/m")]}, "unique"),
        ({"AppSpecification": {"ImageUri": IMAGE, "ContainerArguments": ["x" * 257]}}, "length 257"),
    ],
)
def test_what_the_service_refuses_is_refused(sagemaker: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message) as caught:
        sagemaker.create_processing_job(**processing("refused", **changes))
    assert caught.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"EnableManagedSpotTraining": True}, "MaxWaitTimeInSeconds"),
        ({"HyperParameters": {"a": "x" * 2501}}, "length 2501"),
        ({"Environment": {"A": "x" * 513}}, "length 513"),
        ({"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket/x"}}, "No S3 bucket"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}}, "EnableManagedSpotTraining"),
    ],
)
def test_what_the_service_refuses_of_a_training_is_refused(
    sagemaker: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        sagemaker.create_training_job(**training("refused", **changes))


def test_an_unknown_job_is_not_found(sagemaker: Any) -> None:
    with pytest.raises(ClientError, match="Could not find requested job"):
        sagemaker.describe_processing_job(ProcessingJobName="nobody")
    with pytest.raises(ClientError, match="Requested resource not found"):
        sagemaker.describe_training_job(TrainingJobName="nobody")


@pytest.mark.parametrize(
    ("name", "manifest"),
    [
        ("missing-object", [{"prefix": "s3://rules/"}, "nowhere.png"]),
        ("no-prefix", ["s3://rules/a.png"]),
        ("names-twice", [{"prefix": "s3://rules/"}, "a.png", "a.png"]),
        ("no-names", [{"prefix": "s3://rules/"}]),
        ("no-json", None),
    ],
)
def test_a_bad_manifest_fails_the_job(emulator: Emulator, sagemaker: Any, name: str, manifest: Any) -> None:
    body = json.dumps(manifest) if manifest else "a.png\nb.png"
    emulator.client("s3").put_object(Bucket="rules", Key="a.png", Body=b"film")
    emulator.client("s3").put_object(Bucket="rules", Key=name, Body=body.encode())
    sagemaker.create_processing_job(**processing(name, ProcessingInputs=[source(f"s3://rules/{name}")]))
    answer = ended(sagemaker, name)
    assert answer["ProcessingJobStatus"] == "Failed"
    assert answer["FailureReason"].startswith("ClientError: ")


def test_one_command_starts_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = tmp_path / "emulator.env"
    command = [sys.executable, "-m", "penumo_assets_tests.aws.emulator", "--port", "0", "--write", str(settings)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(settings.exists)
        lines = settings.read_text().splitlines()
        values = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        with urllib.request.urlopen(f"{values['AWS_ENDPOINT_URL']}/penumo-emulated") as answer:
            assert answer.status == 200
        assert values["PENUMO_PROFILE"] == "aws"
        home = Path(values["DAGSTER_HOME"])
        assert home.parent.exists()
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert all(line in output for line in lines)
    assert not settings.exists()
    assert not home.parent.exists()
