"""The JSON files of docs/aws: actions that exist, allowed for every call of the code, in documents AWS would take."""

import ast
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from string import Template
from typing import Any

import boto3
import botocore.session
import pytest
from botocore import xform_name
from moto import mock_aws

import penumo_assets
from penumo_assets.cohort.watch.inbox import Touch, parse_message, touch_of
from penumo_assets.resources.compute.bundle import publish_bundle
from penumo_assets.resources.compute.sagemaker.inputs import write_inputs
from penumo_assets.resources.compute.spec import JobSpec
from penumo_assets.resources.storage.file_store import FileStore

PACKAGE = Path(penumo_assets.__file__).parent
FOLDER = PACKAGE.parent / "docs" / "aws"
FILES = sorted(path.name for path in FOLDER.glob("*.json"))
POLICIES = [name for name in FILES if name.startswith("iam_")]
VALUES = {
    "ACCOUNT": "123456789012",
    "REGION": "eu-central-1",
    "BUCKET": "hospital-films",
    "PREFIX": "penumo",
    "KMS_KEY_ARN": "arn:aws:kms:eu-central-1:123456789012:key/0f3c0f3c-0f3c-0f3c-0f3c-0f3c0f3c0f3c",
    "JOB_ROLE_ARN": "arn:aws:iam::123456789012:role/penumo-jobs",
}
# Actions that are no operation of the API: what they allow is.
PERMISSIONS = {"s3:ListBucket": "ListObjectsV2", "iam:PassRole": None}
# Operations of SageMaker Runtime, whose permissions are SageMaker's.
RUNTIME_PERMISSIONS = {
    "invoke_endpoint": "sagemaker:InvokeEndpoint",
    "invoke_endpoint_async": "sagemaker:InvokeEndpointAsync",
}
PERMISSIONS |= dict.fromkeys(RUNTIME_PERMISSIONS.values())
# Operations whose permission has another name, https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html
S3_PERMISSIONS = {
    "list_objects_v2": "s3:ListBucket",
    "list_objects": "s3:ListBucket",
    "delete_objects": "s3:DeleteObject",
    "copy": "s3:PutObject",
    "delete_message_batch": "sqs:DeleteMessage",
}
OBSTORE_PERMISSIONS = {"get": "s3:GetObject", "head": "s3:GetObject", "put": "s3:PutObject", "copy": "s3:PutObject"}
SERVICES = ("logs", "secretsmanager", "sqs", "sns", "ecr", "sagemaker")  # SNS has an operation of one of its names
BUCKET = "arn:aws:s3:::hospital-films"


def document(name: str) -> Any:
    """A file with its placeholders filled in; an unknown placeholder is an error."""
    return json.loads(Template((FOLDER / name).read_text(encoding="utf-8")).substitute(VALUES))


def statements(name: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Effect, actions and resources of each statement."""
    for statement in document(name)["Statement"]:
        actions, resources = statement["Action"], statement.get("Resource", "*")
        yield (
            statement["Effect"],
            [actions] if isinstance(actions, str) else actions,
            [resources] if isinstance(resources, str) else resources,
        )


def allows(name: str, action: str, resource: str = "*") -> bool:
    """Whether a policy allows ``action`` on ``resource``; conditions aside."""
    return any(
        effect == "Allow" and action in actions and any(fnmatchcase(resource, pattern) for pattern in resources)
        for effect, actions, resources in statements(name)
    )


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_json_with_known_placeholders(name: str) -> None:
    assert document(name)
    assert "${" not in json.dumps(document(name))


@pytest.mark.parametrize("name", POLICIES)
def test_every_action_exists(name: str) -> None:
    session = botocore.session.get_session()
    for _, actions, _ in statements(name):
        for action in actions:
            service, operation = action.split(":")
            assert "*" not in action, "least privilege"
            operation = PERMISSIONS.get(action, operation)
            if operation is not None:
                assert operation in session.get_service_model(service).operation_names, action


@pytest.mark.parametrize("name", POLICIES)
def test_only_what_has_no_resource_is_allowed_on_all(name: str) -> None:
    without = {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}
    for _, actions, resources in statements(name):
        if "*" in resources:
            assert set(actions) <= without or all(action.startswith("ec2:") for action in actions)


def called_operations() -> dict[str, set[str]]:
    """The action that each call of an AWS client in the package needs, with the files that make it."""
    session = botocore.session.get_session()
    operations = (
        {
            xform_name(operation): f"{service}:{operation}"
            for service in SERVICES
            for operation in session.get_service_model(service).operation_names
        }
        | S3_PERMISSIONS
        | RUNTIME_PERMISSIONS
    )
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if "MlflowClient" in source:
            continue  # another kind of client
        for node in ast.walk(ast.parse(source)):
            action = None
            if isinstance(node, ast.Attribute) and "client" in ast.unparse(node.value):
                action = operations.get(node.attr)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "obstore":
                action = OBSTORE_PERMISSIONS.get(node.attr)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("get_paginator"):
                action = operations[ast.literal_eval(node.args[0])]
            if action:
                found.setdefault(action, set()).add(path.name)
    return found


def test_every_call_of_the_code_is_allowed() -> None:
    calls = called_operations()
    assert {"sagemaker:CreateTrainingJob", "logs:FilterLogEvents", "s3:ListBucket", "s3:GetObject"} <= calls.keys()
    for action, files in calls.items():
        name = "iam_job_role.json" if files == {"start.py"} else "iam_orchestrator.json"
        granted = {granted for effect, actions, _ in statements(name) for granted in actions if effect == "Allow"}
        assert action in granted, f"{action}, called in {', '.join(sorted(files))}, is not in {name}"


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:ListBucket", BUCKET),
        ("s3:GetObject", f"{BUCKET}/penumo/landing/ward/a.dcm"),
        ("s3:PutObject", f"{BUCKET}/penumo/manifests/ward.jsonl"),
        ("s3:DeleteObject", f"{BUCKET}/penumo/jobs/x/output/result.json"),
        ("s3:AbortMultipartUpload", f"{BUCKET}/penumo/models/resnet34/x/model.tar.gz"),
        ("s3:PutObject", f"{BUCKET}/dagster-logs/storage/x.err"),
        ("kms:Decrypt", VALUES["KMS_KEY_ARN"]),
        ("kms:GenerateDataKey", VALUES["KMS_KEY_ARN"]),
        ("sagemaker:AddTags", "arn:aws:sagemaker:eu-central-1:123456789012:training-job/penumo-x-1"),
        (
            "sagemaker:ListTrainingJobsForHyperParameterTuningJob",
            "arn:aws:sagemaker:eu-central-1:123456789012:hyper-parameter-tuning-job/penumo-resnet34-x-1",
        ),
        ("iam:PassRole", VALUES["JOB_ROLE_ARN"]),
        ("sagemaker:UpdateEndpoint", "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/penumo-realtime"),
        ("sagemaker:InvokeEndpoint", "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/penumo-realtime-canary"),
        ("logs:FilterLogEvents", "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/sagemaker/TrainingJobs:*"),
    ],
)
def test_the_orchestrator_may(action: str, resource: str) -> None:
    assert allows("iam_orchestrator.json", action, resource)


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("s3:GetObject", f"{BUCKET}/penumo/landing/ward/a.dcm", True),
        ("s3:PutObject", f"{BUCKET}/penumo/jobs/x/output/npz/a.npz", True),
        ("s3:PutObject", f"{BUCKET}/penumo/manifests/ward.jsonl", False),
        ("s3:DeleteObject", f"{BUCKET}/penumo/landing/ward/a.dcm", False),
        ("s3:GetObject", f"{BUCKET}/penumo/code/x/start.py", True),
        ("s3:GetObject", f"{BUCKET}/penumo/inputs/x/code.manifest", True),
        ("s3:DeleteObject", f"{BUCKET}/penumo/jobs/x-checkpoints/last.pt", True),
        ("s3:GetObject", f"{BUCKET}/penumo/inputs/penumo-async-canary/0f3c", True),
        ("s3:PutObject", f"{BUCKET}/penumo/jobs/penumo-async/answers/x.out", True),
        ("s3:GetObject", f"{BUCKET}/dagster-logs/x", False),
        ("secretsmanager:GetSecretValue", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:penumo/key-a", True),
        ("secretsmanager:GetSecretValue", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:other", False),
        ("iam:PassRole", VALUES["JOB_ROLE_ARN"], False),
    ],
)
def test_a_job_may_read_its_inputs_and_write_below_jobs(action: str, resource: str, allowed: bool) -> None:
    assert allows("iam_job_role.json", action, resource) is allowed


@pytest.mark.trust
def test_a_job_may_not_write_what_another_runs_or_is_given(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    spec = JobSpec("processing", "prepare", "films", "ward", documents={"work": {"work.jsonl": b"{}"}})
    code = publish_bundle(store)
    write_inputs(store, spec, "penumo-films-1", code)
    keys = {path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file()}
    names = {key.rsplit("/", 1)[-1] for key in keys}
    assert names == {*code.names, "code.manifest", "work.manifest", "work.jsonl"}
    for key in keys:
        assert allows("iam_job_role.json", "s3:GetObject", f"{BUCKET}/penumo/{key}")
        for action in ("s3:PutObject", "s3:DeleteObject"):
            assert not allows("iam_job_role.json", action, f"{BUCKET}/penumo/{key}"), f"{action} of {key}"


def test_the_documents_are_taken_by_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto checks the grammar of policies, botocore the shape of the bucket's settings."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    bucket = VALUES["BUCKET"]
    with mock_aws():
        iam, s3 = boto3.client("iam"), boto3.client("s3", region_name="us-east-1")
        for name in POLICIES:
            iam.create_policy(PolicyName=name.removesuffix(".json"), PolicyDocument=json.dumps(document(name)))
        for name in FILES:
            if name.startswith("trust_"):
                trust = json.dumps(document(name))
                iam.create_role(RoleName=name.removesuffix(".json"), AssumeRolePolicyDocument=trust)
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(document("bucket_policy.json")))
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=document("bucket_encryption.json"))
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=document("bucket_lifecycle.json"))
        rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        expiring = {
            rule["Filter"]["Prefix"]: rule["Expiration"]["Days"]
            for rule in rules
            if "Days" in rule.get("Expiration", {})
        }
        assert expiring == {"penumo/jobs/": 30, "penumo/inputs/": 30, "dagster-logs/": 180}, "what is published stays"


def test_the_bucket_tells_the_queue_of_what_lands(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    bucket, region, landed = VALUES["BUCKET"], VALUES["REGION"], "penumo/landing/ward-7/film.dcm"
    with mock_aws():
        s3, sqs = boto3.client("s3", region_name=region), boto3.client("sqs", region_name=region)
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
        url = sqs.create_queue(QueueName="penumo-landing", Attributes=document("queue_attributes.json"))["QueueUrl"]
        s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration=document("bucket_notification.json")
        )
        sqs.purge_queue(QueueUrl=url)  # the service's test message
        for key in ("penumo/raw/ward-7/film.png", landed):
            s3.put_object(Bucket=bucket, Key=key, Body=b"film")
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    events = [event for item in answer["Messages"] for event in parse_message(item["Body"])]
    assert [event.key for event in events] == [landed]
    assert touch_of(events[0], bucket, "penumo") == Touch("ward-7", complete=False)


def test_the_queue_takes_events_of_this_bucket_alone() -> None:
    (statement,) = json.loads(document("queue_attributes.json")["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    assert statement["Condition"]["ArnLike"] == {"aws:SourceArn": BUCKET}
    assert document("bucket_notification.json")["QueueConfigurations"][0]["QueueArn"] == statement["Resource"]
