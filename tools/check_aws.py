"""`make check-aws`: what is missing on AWS before a first job is paid. Reads only, with the caller's credentials.

Settings, role and its trust, what the caller and the role may do, image, bucket, secrets, quotas, the logs' retention,
the way out of the VPC, and SageMaker's API. Where these credentials may not look, that is said: an administrator's see
everything.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from aws_permissions import job_resources, orchestrator_resources, policy, principal_of, refused
from botocore.exceptions import BotoCoreError, ClientError

from penumo_assets.resources.compute.sagemaker.job import LOG_GROUP
from penumo_assets.resources.compute.sagemaker.machines import default_image, registry_of
from penumo_assets.resources.compute.sagemaker.runner import SageMakerJobRunner
from penumo_assets.resources.compute.sagemaker.service import Service
from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.resources.compute.spec import JobFailed
from penumo_assets.resources.profile import aws_resources
from penumo_assets.resources.storage.object_store import StorageError

REFUSED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}
ENDPOINTS = ("s3", "ecr.api", "ecr.dkr", "logs")
_IMAGE = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.[a-z0-9.-]+/(.+?)(?::([^@:]+)|@(sha256:[0-9a-f]+))")


class Account:
    """An installation's settings, and the account that they name."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.settings: SageMakerSettings = service.settings
        self.bucket, _, self.prefix = service.store.root_uri.removeprefix("s3://").partition("/")

    def client(self, name: str) -> Any:
        return self.service.client(name)

    @cached_property
    def images(self) -> set[str]:
        """Of both kinds of jobs."""
        settings = self.settings
        if settings.image:
            return {settings.image}
        registry = registry_of(self.service.region)
        kinds = (settings.processing_instance_type, settings.training_instance_type)
        return {default_image(registry, kind) for kind in kinds}


def role(account: Account) -> Iterator[str]:
    """The role that jobs run as is there, and SageMaker may take it."""
    arn = account.settings.role_arn
    try:
        found = account.client("iam").get_role(RoleName=arn.rsplit("/", 1)[-1])["Role"]
    except ClientError as error:
        if code(error) != "NoSuchEntity":
            raise
        yield f"there is no role {arn}: create it (docs/deploy_aws.md, step 3), or change PENUMO_SAGEMAKER_ROLE"
        return
    if found["Arn"] != arn:
        yield f"PENUMO_SAGEMAKER_ROLE names {arn}, the account's role of that name is {found['Arn']}"
    if "sagemaker.amazonaws.com" not in json.dumps(found["AssumeRolePolicyDocument"]):
        yield f"SageMaker may not take the role {arn}: its trust policy is docs/aws/trust_job_role.json"


def permissions(account: Account) -> Iterator[str]:
    """IAM would allow the caller what the orchestrator does, and the role what its jobs do."""
    iam, caller = account.client("iam"), account.client("sts").get_caller_identity()
    settings, region, number = account.settings, account.service.region, caller["Account"]
    names = {"ACCOUNT": number, "REGION": region, "BUCKET": account.bucket, "PREFIX": account.prefix}
    names |= {"KMS_KEY_ARN": settings.kms_key, "JOB_ROLE_ARN": settings.role_arn}
    images = [f"arn:aws:ecr:{m[2]}:{m[1]}:repository/{m[3]}" for m in map(_IMAGE.fullmatch, account.images) if m]
    wanted = policy("iam_job_role.json", names, job_resources(settings, images))
    wanted += policy("iam_job_role_vpc.json", names, {}) if settings.subnets else []
    try:
        yield from refused(iam, settings.role_arn, wanted)
    except ClientError as error:
        if code(error) != "NoSuchEntity":  # that there is none, `role` says
            raise
    wanted = policy("iam_orchestrator.json", names, orchestrator_resources(settings, number, region))
    if not caller["Arn"].endswith(":root"):
        yield from refused(iam, principal_of(iam, caller["Arn"]), wanted)


def image(account: Account) -> Iterator[str]:
    """The images of both kinds of jobs are in their registries."""
    for uri in account.images:
        match = _IMAGE.fullmatch(uri)
        if match is None:
            yield f"{uri} is no image in a private registry of ECR, the only kind that jobs take: change PENUMO_IMAGE"
            continue
        registry, region, repository, tag, digest = match.groups()
        if region != account.service.region:
            yield f"{uri} lies in {region}, jobs run in {account.service.region}: change PENUMO_IMAGE"
            continue
        wanted = {"imageTag": tag} if tag else {"imageDigest": digest}
        try:
            answer = account.client("ecr").batch_get_image(
                registryId=registry, repositoryName=repository, imageIds=[wanted]
            )
        except ClientError as error:
            if code(error) != "RepositoryNotFoundException":
                raise
            answer = {"images": []}
        if not answer["images"]:
            yield f"there is no image {uri}: push it (docs/deploy_aws.md, step 5), or change PENUMO_IMAGE"


def bucket(account: Account) -> Iterator[str]:
    """The bucket is there, in the region, closed to the public, encrypted by the key, and refuses what is not TLS."""
    client, name = account.client("s3"), account.bucket
    try:
        place = client.get_bucket_location(Bucket=name)["LocationConstraint"] or "us-east-1"
    except ClientError as error:
        if code(error) != "NoSuchBucket":
            raise
        yield f"there is no bucket {name}: create it (docs/deploy_aws.md, step 2), or change PENUMO_ROOT"
        return
    if place != account.service.region:
        yield f"bucket {name} lies in {place}, jobs run in {account.service.region}: change AWS_DEFAULT_REGION"
    try:
        policy = client.get_bucket_policy(Bucket=name)["Policy"]
    except ClientError as error:
        if code(error) != "NoSuchBucketPolicy":
            raise
        policy = ""
    if "aws:SecureTransport" not in policy:
        yield f"bucket {name} takes requests without TLS: put docs/aws/bucket_policy.json (step 2)"
    try:
        block = client.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    except ClientError as error:
        if code(error) != "NoSuchPublicAccessBlockConfiguration":
            raise
        block = {}
    if not all(block.get(each) for each in ("BlockPublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")):
        yield f"bucket {name} can be made public: block that (docs/deploy_aws.md, step 2)"


def secrets(account: Account) -> Iterator[str]:
    """Every secret that jobs are to read is there."""
    for variable, arn in account.settings.secret_arns.items():
        try:
            account.client("secretsmanager").describe_secret(SecretId=arn)
        except ClientError as error:
            if code(error) != "ResourceNotFoundException":
                raise
            yield f"there is no secret {arn}: create it (step 3), or change {variable}_SECRET_ARN"


def quotas(account: Account) -> Iterator[str]:
    """The account may have as many instances of each type as one job asks for."""
    settings = account.settings
    training = f"{settings.training_instance_type} for {'spot ' if settings.use_spot else ''}training job usage"
    wanted = {
        f"{settings.processing_instance_type} for processing job usage": settings.prepare_instance_count,
        training: settings.training_instance_count,
    }
    pages = account.client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    found = {item["QuotaName"]: item["Value"] for page in pages for item in page["Quotas"]}
    for name, count in wanted.items():
        if found.get(name, 0) < count:
            yield f"the quota '{name}' is {found.get(name, 0):.0f}, a job needs {count}: ask for it in Service Quotas"


def logs(account: Account) -> Iterator[str]:
    """What jobs write to CloudWatch does not stay there, and cost, for ever."""
    for group in LOG_GROUP.values():
        found = account.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
        if not any(item["logGroupName"] == group and item.get("retentionInDays") for item in found):
            yield f"the logs in {group} are kept for ever: give the group a retention (docs/deploy_aws.md, step 5a)"


def network(account: Account) -> Iterator[str]:
    """Jobs in a VPC reach S3, the registry and the logs: through a NAT gateway, or through endpoints."""
    settings, client = account.settings, account.client("ec2")
    if not settings.subnets:
        return
    for subnet in client.describe_subnets(SubnetIds=settings.subnets)["Subnets"]:
        tables = client.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [subnet["VpcId"]]}])["RouteTables"]
        own = [t for t in tables if any(a.get("SubnetId") == subnet["SubnetId"] for a in t["Associations"])]
        main = [t for t in tables if any(a.get("Main") for a in t["Associations"])]
        if any(route.get("NatGatewayId") for table in own or main for route in table["Routes"]):
            continue
        vpc = [{"Name": "vpc-id", "Values": [subnet["VpcId"]]}]
        have = {item["ServiceName"] for item in client.describe_vpc_endpoints(Filters=vpc)["VpcEndpoints"]}
        lacking = [name for name in ENDPOINTS if f"com.amazonaws.{account.service.region}.{name}" not in have]
        if lacking:
            yield f"jobs in {subnet['SubnetId']} reach neither a NAT gateway nor these endpoints: {', '.join(lacking)}"
    groups = client.describe_security_groups(GroupIds=settings.security_group_ids)["SecurityGroups"]
    if settings.training_instance_count > 1 and not any(_lets_itself_in(group) for group in groups):
        yield f"no group of {', '.join(settings.security_group_ids)} lets itself in: hosts of one training need it"


def _lets_itself_in(group: dict[str, Any]) -> bool:
    inward = [pair["GroupId"] for rule in group["IpPermissions"] for pair in rule.get("UserIdGroupPairs", [])]
    return group["GroupId"] in inward


def api(account: Account) -> Iterator[str]:
    """SageMaker answers: a job that nobody has started is not known."""
    try:
        account.client("sagemaker").describe_training_job(TrainingJobName="penumo-check-aws")
    except ClientError as error:
        if code(error) not in {"ValidationException", "ResourceNotFound"}:
            raise
    yield from ()


CHECKS: tuple[Callable[[Account], Iterator[str]], ...] = (
    api,
    bucket,
    role,
    permissions,
    image,
    secrets,
    quotas,
    logs,
    network,
)


def code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "unknown")


def problems(account: Account) -> Iterator[tuple[str, str]]:
    """Name of the check and what is wrong, in the order of CHECKS."""
    for check in CHECKS:
        try:
            for problem in check(account):
                yield check.__name__, problem
        except ClientError as error:
            not_allowed = code(error) in REFUSED
            what = "could not look: these credentials may not" if not_allowed else f"AWS answers {code(error)}"
            yield check.__name__, f"{what} ({error.operation_name})"
        except (BotoCoreError, JobFailed, StorageError) as error:
            text = f"{type(error).__name__}; check AWS_ENDPOINT_URL" if isinstance(error, BotoCoreError) else str(error)
            yield check.__name__, text


def main() -> int:
    runner = aws_resources()["jobs"]
    assert isinstance(runner, SageMakerJobRunner)
    try:
        account = Account(runner.service)
    except (JobFailed, StorageError) as error:
        print(f"settings: {error}")
        return 1
    found = list(problems(account))
    for name, problem in found:
        print(f"{name}: {problem}")
    names = {name for name, _ in found}
    good = [check.__name__ for check in CHECKS if check.__name__ not in names]
    print(f"in order: {', '.join(good) or 'nothing'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
