"""The emulator refuses what SageMaker refuses: a runner that passes here has not passed a blank cheque."""

import copy
import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.emulator.server import IMAGE, ROLE, wait_for

CHECKOUT = Path(__file__).parents[2]
HELLO = ["python3", "-c", "print('hello')"]


def processing(name: str, **changes: Any) -> dict[str, Any]:
    output = {"S3Uri": "s3://rules/out", "LocalPath": "/opt/ml/processing/output/x", "S3UploadMode": "EndOfJob"}
    request = {
        "ProcessingJobName": name,
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": HELLO},
        "ProcessingResources": {
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.xlarge", "VolumeSizeInGB": 10}
        },
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "x", "S3Output": output}]},
    }
    return copy.deepcopy(request) | changes


def training(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": HELLO,
        },
        "OutputDataConfig": {"S3OutputPath": "s3://rules/models"},
        "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.xlarge", "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    } | changes


def source(uri: str, name: str = "films") -> dict[str, Any]:
    place = {"LocalPath": f"/opt/ml/processing/input/{name}", "S3DataType": "ManifestFile", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": {"S3Uri": uri, **place}}


@pytest.fixture(scope="module")
def sagemaker(emulator: Emulator) -> Any:
    emulator.environment("rules")
    return emulator.client("sagemaker")


def ended(sagemaker: Any, name: str) -> dict[str, Any]:
    def state() -> dict[str, Any] | None:
        answer = sagemaker.describe_processing_job(ProcessingJobName=name)
        return answer if answer["ProcessingJobStatus"] in {"Completed", "Failed"} else None

    return wait_for(state)


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


def test_hosts_can_share_an_input_by_key(emulator: Emulator, sagemaker: Any) -> None:
    names = [f"film-{number}" for number in range(5)]
    for name in names:
        emulator.client("s3").put_object(Bucket="rules", Key=f"films/{name}", Body=b"film")
    manifest = json.dumps([{"prefix": "s3://rules/films/"}, *names])
    emulator.client("s3").put_object(Bucket="rules", Key="films.manifest", Body=manifest.encode())
    item = source("s3://rules/films.manifest")
    item["S3Input"]["S3DataDistributionType"] = "ShardedByS3Key"
    code = (
        "import os, json, pathlib; root = pathlib.Path(os.environ['PENUMO_OPT_ML']);"
        "host = json.loads((root / 'config/resourceconfig.json').read_text())['current_host'];"
        "out = root / 'processing/output/x'; out.mkdir(parents=True);"
        "(out / host).write_text(' '.join(sorted(os.listdir(root / 'processing/input/films'))))"
    )
    request = processing(
        "sharded",
        ProcessingInputs=[item],
        AppSpecification={"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "-c"], "ContainerArguments": [code]},
    )
    request["ProcessingResources"]["ClusterConfig"]["InstanceCount"] = 2
    with pytest.raises(ClientError, match="length"):
        sagemaker.create_processing_job(**request)  # a program does not fit into an argument
    emulator.client("s3").put_object(Bucket="rules", Key="code/x.py", Body=code.encode())
    place = {"LocalPath": "/opt/ml/processing/input/code", "S3DataType": "S3Prefix", "S3InputMode": "File"}
    request["ProcessingInputs"].append({"InputName": "code", "S3Input": {"S3Uri": "s3://rules/code", **place}})
    request["AppSpecification"] = {
        "ImageUri": IMAGE,
        "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/x.py"],
    }
    sagemaker.create_processing_job(**request)
    assert ended(sagemaker, "sharded")["ProcessingJobStatus"] == "Completed"
    shares = [
        emulator.client("s3").get_object(Bucket="rules", Key=f"out/{host}")["Body"].read().decode().split()
        for host in ("algo-1", "algo-2")
    ]
    assert sorted(shares[0] + shares[1]) == names
    assert shares[0]
    assert shares[1]


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
