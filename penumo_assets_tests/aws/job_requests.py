"""Requests for jobs, as small as the service takes them, and small programs to run in their containers."""

import copy
from typing import Any

from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.emulator.server import IMAGE, ROLE, wait_for

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


def ended(sagemaker: Any, name: str) -> dict[str, Any]:
    def state() -> dict[str, Any] | None:
        answer = sagemaker.describe_processing_job(ProcessingJobName=name)
        return answer if answer["ProcessingJobStatus"] in {"Completed", "Failed"} else None

    return wait_for(state)


def run_code(emulator: Emulator, name: str, code: str, hosts: int = 1, **changes: Any) -> None:
    """Start a processing job of that name that runs ``code``, which is too long for an argument."""
    emulator.environment("rules")
    emulator.client("s3").put_object(Bucket="rules", Key=f"code/{name}/x.py", Body=code.encode())
    given = source(f"s3://rules/code/{name}", "code")
    given["S3Input"]["S3DataType"] = "S3Prefix"
    entry = ["python3", "/opt/ml/processing/input/code/x.py"]
    request = processing(name, ProcessingInputs=[given, *changes.pop("inputs", [])])
    request["ProcessingResources"]["ClusterConfig"]["InstanceCount"] = hosts
    request["AppSpecification"] = {"ImageUri": changes.pop("image", IMAGE), "ContainerEntrypoint": entry}
    emulator.client("sagemaker").create_processing_job(**request | changes)
