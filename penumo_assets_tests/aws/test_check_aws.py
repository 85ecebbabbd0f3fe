"""`make check-aws`: an installation in order passes, and each thing that is broken in turn is named."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from penumo_assets.resources.profile import aws_resources
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.emulator.server import REGION, ROLE

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import check_aws  # tools are programs, not a package

BUCKET = "checked-films"
REPOSITORY = "penumo-jobs"
TLS_ONLY = {"Effect": "Deny", "Action": "s3:*", "Principal": "*", "Resource": f"arn:aws:s3:::{BUCKET}/*"} | {
    "Condition": {"Bool": {"aws:SecureTransport": "false"}}
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
    return emulator


def give_role(iam: Any, service: str) -> None:
    """A new role of that name, which ``service`` may take."""
    name = ROLE.rsplit("/", 1)[-1]
    with suppress(iam.exceptions.NoSuchEntityException):
        iam.delete_role(RoleName=name)
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )


def found() -> list[tuple[str, str]]:
    return list(check_aws.problems(check_aws.Account(aws_resources()["jobs"].service)))


def test_an_installation_in_order_passes_and_no_job_is_created(
    account: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(account.requests)
    assert check_aws.main() == 0
    assert capsys.readouterr().out == "in order: api, bucket, role, image, secrets, quotas, network\n"
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
        (_denied, "api", "may not look at it"),
    ],
)
def test_what_is_broken_is_named(
    account: Emulator, monkeypatch: pytest.MonkeyPatch, break_it: Any, check: str, message: str
) -> None:
    break_it(account, monkeypatch)
    (problem,) = found()
    assert problem[0] == check
    assert message in problem[1]


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
