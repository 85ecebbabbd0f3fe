"""`make check-aws`: an installation in order passes, and each thing that is broken in turn is named."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any

import boto3
import pytest

from penumo_assets.resources.compute.sagemaker.job import LOG_GROUP
from penumo_assets.resources.profile import aws_resources
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.emulator.server import ACCOUNT, REGION, ROLE

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import aws_permissions  # tools are programs, not a package
import check_aws

BUCKET = "checked-films"
REPOSITORY = "penumo-jobs"
TLS_ONLY = {"Effect": "Deny", "Action": "s3:*", "Principal": "*", "Resource": f"arn:aws:s3:::{BUCKET}/*"} | {
    "Condition": {"Bool": {"aws:SecureTransport": "false"}}
}
CALLER = "orchestrator"
NAMES = {
    **{"ACCOUNT": ACCOUNT, "REGION": REGION, "BUCKET": BUCKET, "PREFIX": "penumo", "JOB_ROLE_ARN": ROLE},
    "KMS_KEY_ARN": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1",
}
CLOSED = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)


@pytest.fixture
def account(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """What docs/deploy_aws.md sets up, in the emulator."""
    for name, value in emulator.environment(BUCKET).items():
        monkeypatch.setenv(name, value)
    s3, iam, ecr = (emulator.client(name) for name in ("s3", "iam", "ecr"))
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [TLS_ONLY]}))
    s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=CLOSED)
    give_role(iam, "sagemaker.amazonaws.com")
    if not ecr.describe_repositories()["repositories"]:
        ecr.create_repository(repositoryName=REPOSITORY)
        manifest = json.dumps({"schemaVersion": 2, "layers": [], "config": {"digest": "sha256:" + "0" * 64}})
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        ecr.put_image(repositoryName=REPOSITORY, imageManifest=manifest, imageManifestMediaType=kind, imageTag="1")
    monkeypatch.setenv("PENUMO_IMAGE", f"123456789012.dkr.ecr.{REGION}.amazonaws.com/{REPOSITORY}:1")
    secrets = emulator.client("secretsmanager")
    names = [item["Name"] for item in secrets.list_secrets()["SecretList"]]
    if "penumo/checked" not in names:
        secrets.create_secret(Name="penumo/checked", SecretString="a secret that is long")
    secret = secrets.describe_secret(SecretId="penumo/checked")["ARN"]
    monkeypatch.setenv("PENUMO_DEID_KEY_SECRET_ARN", secret)
    for group in LOG_GROUP.values():
        with suppress(emulator.client("logs").exceptions.ResourceAlreadyExistsException):
            emulator.client("logs").create_log_group(logGroupName=group)
        emulator.client("logs").put_retention_policy(logGroupName=group, retentionInDays=90)
    for name, value in give_caller(iam).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers the credentials of whoever came first
    return emulator


def give_role(iam: Any, service: str) -> None:
    """The role, as docs/aws has it, which ``service`` may take."""
    name = ROLE.rsplit("/", 1)[-1]
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
    for document in ("iam_job_role.json", "iam_job_role_vpc.json"):
        iam.put_role_policy(RoleName=name, PolicyName=document[:-5], PolicyDocument=json.dumps(policy_of(document)))


def give_caller(iam: Any) -> dict[str, str]:
    """Credentials of a user who may what the orchestrator may."""
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_user(UserName=CALLER)
    put_caller_policy(iam, policy_of("iam_orchestrator.json"))
    for known in iam.list_access_keys(UserName=CALLER)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=CALLER, AccessKeyId=known["AccessKeyId"])
    key = iam.create_access_key(UserName=CALLER)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


def put_job_role_policy(emulator: Emulator, document: dict[str, Any]) -> None:
    emulator.client("iam").put_role_policy(
        RoleName=ROLE.rsplit("/", 1)[-1], PolicyName="iam_job_role", PolicyDocument=json.dumps(document)
    )


def put_caller_policy(iam: Any, document: dict[str, Any]) -> None:
    iam.put_user_policy(UserName=CALLER, PolicyName="orchestrator", PolicyDocument=json.dumps(document))


def policy_of(name: str) -> dict[str, Any]:
    """A policy of docs/aws as its reader fills it in."""
    text = (aws_permissions.FOLDER / name).read_text(encoding="utf-8")
    return json.loads(Template(text).substitute(NAMES))


def without(document: dict[str, Any], *sids: str) -> dict[str, Any]:
    assert {*sids} <= {item["Sid"] for item in document["Statement"]}
    return document | {"Statement": [item for item in document["Statement"] if item["Sid"] not in sids]}


def found() -> list[tuple[str, str]]:
    return list(check_aws.problems(check_aws.Account(aws_resources()["jobs"].service)))


def test_an_installation_in_order_passes_and_no_job_is_created(
    account: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(account.requests)
    assert check_aws.main() == 0
    assert (
        capsys.readouterr().out == "in order: api, bucket, role, permissions, image, secrets, quotas, logs, network\n"
    )
    assert [request.operation for request in account.requests[before:]] == ["DescribeTrainingJob"]


def test_missing_settings_are_named_first(
    account: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PENUMO_SAGEMAKER_ROLE")
    assert check_aws.main() == 1
    assert "PENUMO_SAGEMAKER_ROLE" in capsys.readouterr().out


def _no_trust(emulator: Emulator, _: pytest.MonkeyPatch) -> None:
    give_role(emulator.client("iam"), "ec2.amazonaws.com")


def _no_policy(emulator: Emulator, _: pytest.MonkeyPatch) -> None:
    emulator.client("s3").delete_bucket_policy(Bucket=BUCKET)


def _open_bucket(emulator: Emulator, _: pytest.MonkeyPatch) -> None:
    emulator.client("s3").delete_public_access_block(Bucket=BUCKET)


def _variable(name: str, value: str) -> Callable[[Emulator, pytest.MonkeyPatch], None]:
    return lambda _, monkeypatch: monkeypatch.setenv(name, value)


def _quota(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(emulator.limits.quotas, "ml.m5.xlarge for training job usage", 0.0)


def _orchestrator_without(*sids: str) -> Callable[[Emulator, pytest.MonkeyPatch], None]:
    document = without(policy_of("iam_orchestrator.json"), *sids)
    return lambda emulator, _: put_caller_policy(emulator.client("iam"), document)


def _job_role_without(*sids: str) -> Callable[[Emulator, pytest.MonkeyPatch], None]:
    document = without(policy_of("iam_job_role.json"), *sids)
    return lambda emulator, _: put_job_role_policy(emulator, document)


def _nobody_may_ask(emulator: Emulator, _: pytest.MonkeyPatch) -> None:
    emulator.fail("SimulatePrincipalPolicy", "AccessDenied")


def _logs_for_ever(emulator: Emulator, _: pytest.MonkeyPatch) -> None:
    emulator.client("logs").delete_retention_policy(logGroupName=LOG_GROUP["training"])


def _denied(emulator: Emulator, _: pytest.MonkeyPatch) -> None:
    emulator.fail("DescribeTrainingJob", "AccessDeniedException")


@pytest.mark.parametrize(
    ("break_it", "check", "message"),
    [
        (_variable("PENUMO_SAGEMAKER_ROLE", "arn:aws:iam::123456789012:role/nobody"), "role", "there is no role"),
        (_no_trust, "role", "trust_job_role.json"),
        (_variable("PENUMO_IMAGE", "pytorch:latest"), "image", "no image in a private registry"),
        (_variable("PENUMO_IMAGE", f"123456789012.dkr.ecr.{REGION}.amazonaws.com/{REPOSITORY}:2"), "image", "push it"),
        (_variable("PENUMO_IMAGE", f"123456789012.dkr.ecr.{REGION}.amazonaws.com/other:1"), "image", "push it"),
        (
            _variable("PENUMO_IMAGE", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/o:1"),
            "image",
            "lies in eu-west-1",
        ),
        (_variable("PENUMO_ROOT", "s3://nobodys-films/penumo"), "bucket", "there is no bucket nobodys-films"),
        (_no_policy, "bucket", "without TLS"),
        (_open_bucket, "bucket", "can be made public"),
        (
            _variable(
                "PENUMO_DEID_KEY_SECRET_ARN", f"arn:aws:secretsmanager:{REGION}:123456789012:secret:penumo/gone-abcdef"
            ),
            "secrets",
            "PENUMO_DEID_KEY_SECRET_ARN",
        ),
        (_quota, "quotas", "'ml.m5.xlarge for training job usage' is 0, a job needs 1"),
        (_variable("PENUMO_TRAINING_INSTANCE_TYPE", "ml.g5.xlarge"), "quotas", "'ml.g5.xlarge for training job usage'"),
        (_denied, "api", "could not look: these credentials may not (DescribeTrainingJob)"),
        (_orchestrator_without("GiveJobsTheirRole"), "permissions", f"may not iam:PassRole on {ROLE}"),
        (_orchestrator_without("RunJobs"), "permissions", "may not sagemaker:AddTags, sagemaker:CreateHyperParameter"),
        (
            _job_role_without("WriteOutputsAndCheckpoints"),
            "permissions",
            "may not s3:AbortMultipartUpload, s3:Put",
        ),
        (_job_role_without("GetTheContainerImages"), "permissions", "(statement GetTheContainerImages of docs/aws)"),
        (_job_role_without("ReadItsSecrets"), "permissions", "may not secretsmanager:GetSecretValue on arn:aws"),
        (_nobody_may_ask, "permissions", "could not look: these credentials may not (SimulatePrincipalPolicy)"),
        (_logs_for_ever, "logs", "/aws/sagemaker/TrainingJobs are kept for ever"),
    ],
)
def test_what_is_broken_is_named(
    account: Emulator, monkeypatch: pytest.MonkeyPatch, break_it: Any, check: str, message: str
) -> None:
    break_it(account, monkeypatch)
    problems = found()
    (problem,) = [text for name, text in problems if name == check]
    assert message in problem
    # Whoever names another role, image or bucket has to give the roles rights on it too.
    assert {name for name, _ in problems} <= {check, "permissions"}


def test_a_private_network_without_a_way_out_is_named(account: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.7.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="jobs", Description="jobs", VpcId=vpc)["GroupId"]
    monkeypatch.setenv("PENUMO_SUBNETS", subnet)
    monkeypatch.setenv("PENUMO_SECURITY_GROUPS", group)
    monkeypatch.setenv("PENUMO_TRAINING_INSTANCES", "2")
    assert [(name, text.split(":")[0]) for name, text in found()] == [
        ("network", f"jobs in {subnet} reach neither a NAT gateway nor these endpoints"),
        ("network", f"no group of {group} lets itself in"),
    ]
    for name in check_aws.ENDPOINTS:
        ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=f"com.amazonaws.{REGION}.{name}")
    inward = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=inward)
    assert found() == []


def test_what_an_installation_does_not_use_needs_no_permission(
    account: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    optional = {
        "TakeTheBucketsEvents": (
            "PENUMO_EVENTS_QUEUE_URL",
            f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/penumo-landing",
        ),
        "TellOfFailedRuns": ("PENUMO_ALERT_SNS_TOPIC_ARN", f"arn:aws:sns:{REGION}:{ACCOUNT}:penumo-alerts"),
        "RegisterModels": ("PENUMO_INFERENCE_IMAGE", "an-image"),
        "EncryptObjects": ("PENUMO_KMS_KEY", NAMES["KMS_KEY_ARN"]),
    }
    iam, whole = account.client("iam"), policy_of("iam_orchestrator.json")
    put_caller_policy(iam, without(whole, *optional))
    assert found() == []
    for sid, (variable, value) in optional.items():
        monkeypatch.setenv(variable, value)
        ((name, text),) = found()
        assert (name, f"(statement {sid} of docs/aws)" in text) == ("permissions", True)
        monkeypatch.delenv(variable)
    put_caller_policy(iam, whole)
    for variable, value in optional.values():
        monkeypatch.setenv(variable, value)
    assert found() == []


def test_logs_of_an_endpoint_matter_where_there_may_be_one(account: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    document = policy_of("iam_job_role.json")
    (logs,) = [item for item in document["Statement"] if item["Sid"] == "WriteLogs"]
    logs["Resource"] = [arn for arn in logs["Resource"] if "ingJobs" in arn]
    put_job_role_policy(account, document)
    assert found() == []
    monkeypatch.setenv("PENUMO_INFERENCE_IMAGE", "an-image")
    ((name, text),) = found()
    assert name == "permissions"
    assert "Endpoints" in text


def test_a_caller_who_has_assumed_a_role_is_asked_about_by_the_role(account: Emulator) -> None:
    iam = account.client("iam")
    assumed = ROLE.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/a-session"
    assert aws_permissions.principal_of(iam, assumed) == ROLE
    assert aws_permissions.principal_of(iam, "arn:aws:iam::123456789012:user/u") == "arn:aws:iam::123456789012:user/u"
