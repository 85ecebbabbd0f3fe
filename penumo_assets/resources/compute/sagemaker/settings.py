"""What an installation decides about its SageMaker jobs. `resources/profile.py` reads it from the environment."""

from dagster import Config
from pydantic import Field

from penumo_assets.resources.compute.spec import JobSpec

# Programs that share their work out among hosts; every other would do all of it on each.
SHARING_PROGRAMS = ("prepare", "train")


class SageMakerSettings(Config):
    """Fields of the SageMaker runner, and what follows from them for one job."""

    role_arn: str = Field(default="", description="ARN of the role that jobs run as (PENUMO_SAGEMAKER_ROLE).")
    image: str = Field(
        default="",
        description="URI of the container image of all jobs; empty: AWS's PyTorch image for the region and the "
        "instance type.",
    )
    processing_instance_type: str = Field(default="ml.m5.xlarge", description="Instance of processing jobs.")
    training_instance_type: str = Field(default="ml.g5.xlarge", description="Instance of training jobs.")
    prepare_instance_count: int = Field(default=1, ge=1, description="Instances that share a cohort's images.")
    training_instance_count: int = Field(default=1, ge=1, description="Instances that train one model together.")
    volume_gb: int = Field(default=50, ge=1, description="Disk of each instance in GB.")
    kms_key: str = Field(
        default="",
        description="KMS key of what jobs write to S3 and of the instances' EBS disks; hardware encrypts the NVMe "
        "disks that some types have.",
    )
    pip_index_url: str = Field(default="", description="Index from which jobs install what their image lacks.")
    subnets: list[str] = Field(default=[], description="Subnets of the VPC to run in; empty: no VPC.")
    security_group_ids: list[str] = Field(default=[], description="Security groups, needed with subnets.")
    encrypt_traffic: bool = Field(default=False, description="Encrypt what instances of one job tell each other.")
    max_runtime_seconds: int = Field(default=24 * 3600, ge=60, description="A job is stopped after this time.")
    use_spot: bool = Field(default=False, description="Train on spot instances; training goes on from checkpoints.")
    max_wait_seconds: int = Field(
        default=48 * 3600, ge=60, description="Longest time a spot training may take, waiting for capacity included."
    )
    tags: dict[str, str] = Field(default={}, description="Tags of every job, beside those that lead to the run.")
    secret_arns: dict[str, str] = Field(
        default={}, description="Secrets Manager ARNs of variables that hold secrets, e.g. of PENUMO_DEID_KEY."
    )
    job_name_prefix: str = Field(default="penumo", description="First word of every job name.")
    poll_seconds: float = Field(
        default=12.0, gt=0, description="How often a running job is described and its log is read."
    )
    max_retries: int = Field(default=5, ge=0, description="New attempts after a lack of capacity or an internal error.")
    retry_seconds: float = Field(default=30.0, ge=0, description="First pause before a new attempt; it doubles.")
    quota_wait_hours: float = Field(
        default=12.0, ge=0, description="How long a job waits while others of the account use up the quota."
    )

    def instance_type(self, spec: JobSpec) -> str:
        return self.processing_instance_type if spec.kind == "processing" else self.training_instance_type

    def instance_count(self, spec: JobSpec) -> int:
        if spec.program not in SHARING_PROGRAMS:
            return 1
        return self.prepare_instance_count if spec.kind == "processing" else self.training_instance_count
