"""Write docs/configuration.md from the configuration's own models.

python tools/configuration.py
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from penumo_assets.assets.champion import ChampionConfig
from penumo_assets.assets.evaluation import EvaluationConfig
from penumo_assets.assets.external import ExternalConfig
from penumo_assets.checks.dataset import ClassBalanceConfig, DuplicatesConfig, SamePreparationConfig
from penumo_assets.checks.identity import PatientIdentityConfig
from penumo_assets.checks.objects import SampleConfig, TensorSampleConfig
from penumo_assets.checks.preparation import PreparationConfig
from penumo_assets.checks.quality import IntensityDriftConfig, MaskPlausibilityConfig, RejectRateConfig
from penumo_assets.configs.base import leaves
from penumo_assets.configs.endpoint import EndpointConfig
from penumo_assets.configs.inference import InferenceConfig
from penumo_assets.configs.search import SearchConfig
from penumo_assets.configs.segmenter import SegmenterConfig
from penumo_assets.configs.train import PRESETS, DatasetConfig, TrainConfig

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
INTRODUCTION = """# Configuration

Every setting has a default, a description and a check; the Dagster launchpad shows the same fields. Unknown keys and
impossible values are refused by name before anything runs. This page is written by `python tools/configuration.py`.

How images are prepared has [a page of its own](prepare_configuration.md), with pictures.

"""


@dataclass(frozen=True)
class Section:
    """A configuration and the asset or check whose launchpad shows it; ``elsewhere`` are parts that other sections
    describe."""

    title: str
    asset: str
    model: BaseModel
    note: str = ""
    elsewhere: tuple[str, ...] = ()


def recipes() -> str:
    """Each preset, and what it sets."""
    values = {name: [f"`{key}: {value}`" for key, value in recipe.items()] for name, recipe in PRESETS.items()}
    return "; ".join(f"`{name}` sets {', '.join(settings)}" for name, settings in values.items())


SECTIONS = (
    Section("Lung segmenter", "lung_segmenter", SegmenterConfig()),
    Section(
        "Training set",
        "training_set",
        DatasetConfig(),
        "In the launchpad these stand under `dataset`, beside `cohorts` (empty: all) and `incremental`.",
    ),
    Section(
        "Training",
        "trained_model",
        TrainConfig(),
        "Each is a hyperparameter of `python -m penumo_assets.jobs.train` by the same name, with dashes. "
        "`from_search: true` takes what `hyperparameter_search` found best. Presets: " + recipes() + ".",
    ),
    Section("Hyperparameter search", "hyperparameter_search", SearchConfig()),
    Section(
        "Evaluation and quality gates",
        "evaluation_report",
        EvaluationConfig(),
        "A gate that is `null` asks for nothing. What the gates mean: [evaluation](evaluation.md).",
    ),
    Section("Champion", "champion_model", ChampionConfig()),
    Section(
        "External validation",
        "external_validation",
        ExternalConfig(),
        "`evaluation` holds the keys of `evaluation_report`, `dataset` those of `training_set` (`classes` and `map` "
        "count always, the rest with `leave_out`), and `train` those of `trained_model` (with `leave_out`).",
        ("evaluation", "dataset", "train"),
    ),
    Section("Inference", "predictions", InferenceConfig()),
    Section(
        "Endpoint",
        "endpoint",
        EndpointConfig(),
        "On SageMaker alone. What each mode is good for: [operations](operations.md#serve-by-an-endpoint).",
    ),
)
CHECKS = (
    Section("", "raw_images_reject_rate", RejectRateConfig()),
    Section("", "raw_images_patient_identity", PatientIdentityConfig()),
    Section("", "raw_images_intensity_drift", IntensityDriftConfig()),
    Section("", "lung_masks_mask_plausibility", MaskPlausibilityConfig()),
    Section("", "raw_images_manifest_agrees", SampleConfig()),
    Section("", "lung_masks_manifest_agrees", SampleConfig()),
    Section("", "preprocessed_images_manifest_agrees", SampleConfig()),
    Section("", "npz_tensors_npz_contract", TensorSampleConfig()),
    Section("", "npz_tensors_preparation_reveals", PreparationConfig()),
    Section("", "training_set_same_preparation", SamePreparationConfig()),
    Section("", "training_set_duplicates", DuplicatesConfig()),
    Section("", "training_set_class_balance", ClassBalanceConfig()),
)
ENVIRONMENT_NOTE = """
## Environment

Everything else that AWS's tools read (`AWS_DEFAULT_REGION`, `AWS_PROFILE`, …) works as usual. The containers of a
deployment read a few more: [deploy on AWS](deploy_aws.md).

"""
CHECKS_NOTE = """## Tolerances of asset checks

Each check is an op of its run: `{"ops": {"raw_images_reject_rate": {"config": {"max_rate": 0.05}}}}`.

| op | key | default | meaning |
|---|---|---|---|
"""

ENVIRONMENT: tuple[tuple[str, str, str], ...] = (
    ("PENUMO_PROFILE", "`embedded`", "`embedded`: files, local processes, SQLite. `aws`: S3 and SageMaker."),
    (
        "PENUMO_ROOT",
        "`.penumo` in the checkout",
        "Where all objects live: a folder, `file://` or `s3://bucket/prefix`.",
    ),
    (
        "DAGSTER_HOME",
        "`.penumo/dagster` in the checkout",
        "Dagster's instance: runs, partitions, events. Without the `.env` of `make install`: `dagster` under the root.",
    ),
    (
        "PENUMO_DEID_KEY",
        "none",
        "Secret of 16 bytes or more that pseudonymises patient ids and file names (HMAC-SHA-256); without it DICOM is "
        "refused. With another key a patient and an image get other ids: "
        "a cohort takes one only from a launch with `rekey: true`.",
    ),
    (
        "OMP_NUM_THREADS",
        "one per core",
        "CPU threads of a training and of predictions. Set it to 1 where several jobs run on the same cores at once.",
    ),
    ("PENUMO_SETTLE_SECONDS", "60", "How long a landing folder must be unchanged before a sensor runs it."),
    ("PENUMO_EVENTS_QUEUE_URL", "none", "SQS queue with the bucket's event notifications, for `landing_events`."),
    ("PENUMO_ALERT_WEBHOOK_URL", "none", "Where the sensor `run_failure` posts (JSON) when a run fails."),
    ("PENUMO_ALERT_SNS_TOPIC_ARN", "none", "SNS topic to which `run_failure` publishes."),
    (
        "PENUMO_DAGSTER_UI",
        "none in messages; in MLflow `http://127.0.0.1:3000`, on AWS none",
        "Address of Dagster's UI, for links in those messages, and in MLflow to the assets.",
    ),
    ("MLFLOW_TRACKING_URI", "SQLite under the root", "Where training is tracked and models are registered."),
    (
        "MLFLOW_TRACKING_USERNAME",
        "none",
        "Who asks there. The user and the password of `https://user:password@host` count as these two variables.",
    ),
    ("MLFLOW_TRACKING_PASSWORD", "none", "Its password; handed to jobs as a secret."),
    ("MLFLOW_TRACKING_TOKEN", "none", "Instead: a bearer token; handed to jobs as a secret."),
    ("MLFLOW_EXPERIMENT_NAME", "`pneumonia`", "The experiment of all runs."),
    ("PENUMO_REGISTERED_MODEL", "`pneumonia-classifier`", "Name of the model in MLflow's registry."),
    (
        "PENUMO_REPORTS_URL",
        "`http://127.0.0.1:3001`; on AWS none",
        "Address under which `penumo reports` (or `penumo dev`) is reached, for links from asset pages to reports.",
    ),
    (
        "PENUMO_MLFLOW_UI",
        "`http://127.0.0.1:5000`, where `penumo mlflow` opens; none where `MLFLOW_TRACKING_URI` is set or on AWS",
        "Address of MLflow's UI: metadata then links to runs, and runs to their reports.",
    ),
    ("PENUMO_SAGEMAKER_ROLE", "none (needed)", "ARN of the role that jobs run as."),
    ("PENUMO_IMAGE", "AWS's PyTorch 2.13 image", "Container image of all jobs: [deploy on AWS](deploy_aws.md)."),
    ("PENUMO_PROCESSING_INSTANCE_TYPE", "`ml.m5.xlarge`", "Instance of prepare, pack, evaluate and infer."),
    ("PENUMO_TRAINING_INSTANCE_TYPE", "`ml.g5.xlarge`", "Instance of training."),
    ("PENUMO_PREPARE_INSTANCES", "1", "Instances that share a cohort's images; each is given its own."),
    ("PENUMO_TRAINING_INSTANCES", "1", "Instances that train one model together."),
    ("PENUMO_SPOT", "off", "`1`: train on spot instances, from checkpoint to checkpoint."),
    ("PENUMO_VOLUME_GB", "50", "Disk of each instance."),
    ("PENUMO_MAX_RUNTIME_SECONDS", "86400", "A job is stopped after this time; more than the default is not given."),
    ("PENUMO_POLL_SECONDS", "12", "How often a running job is described and its log is read."),
    ("PENUMO_MAX_WAIT_SECONDS", "172800", "Longest time a spot training may take, waiting for capacity included."),
    ("PENUMO_MAX_RETRIES", "5", "New attempts after a lack of capacity or a fault of the service."),
    ("PENUMO_RETRY_SECONDS", "30", "First pause before a new attempt; it doubles, up to ten minutes."),
    ("PENUMO_QUOTA_WAIT_HOURS", "12", "How long a job waits while others of the account use up the quota."),
    ("PENUMO_PIP_INDEX_URL", "none", "Index from which jobs install what their image lacks; it holds no password."),
    ("PENUMO_JOB_NAME_PREFIX", "`penumo`", "First word of job names; the policies of docs/aws name `penumo-*`."),
    ("PENUMO_ENCRYPT_TRAFFIC", "off", "`1`: encrypt what the instances of one job tell each other."),
    ("PENUMO_TAGS", "none", "Tags of every job, `key=value`, comma-separated."),
    ("PENUMO_KMS_KEY", "none", "Key of objects, disks and outputs."),
    ("PENUMO_SUBNETS", "none", "Subnets of the VPC to run jobs in, comma-separated."),
    ("PENUMO_SECURITY_GROUPS", "none", "Their security groups, comma-separated; both or neither."),
    (
        "PENUMO_DEID_KEY_SECRET_ARN",
        "none",
        "Secret in Secrets Manager from which jobs read `PENUMO_DEID_KEY`; `PENUMO_X` and `MLFLOW_X` "
        "likewise: `MLFLOW_TRACKING_PASSWORD_SECRET_ARN`, `MLFLOW_TRACKING_TOKEN_SECRET_ARN`, and "
        "`MLFLOW_TRACKING_URI_SECRET_ARN` for an address that is neither SQLite nor a plain web address.",
    ),
    (
        "PENUMO_INFERENCE_IMAGE",
        "none",
        "Container that serves a model: champions then become model packages, which `endpoint` needs.",
    ),
    ("PENUMO_MODEL_PACKAGE_GROUP", "`pneumonia-classifier`", "Group of those packages in SageMaker's registry."),
    (
        "PENUMO_LOG",
        "none",
        "`debug`: `penumo demo` shows Dagster's log and the libraries' warnings instead of writing them to a file.",
    ),
    ("PENUMO_OPT_ML", "`/opt/ml`", "Set for jobs: the root of the container's layout."),
    ("PENUMO_CODE_VERSION", "by the sources", "Set for jobs: digest of the code, which MLflow runs are tagged with."),
    (
        "PENUMO_MLFLOW_PARENT_RUN_ID",
        "by the run",
        "Set for jobs: the Dagster run's MLflow run, above a training's own.",
    ),
    ("PENUMO_DAGSTER_RUN_ID", "by the run", "Set for jobs: the Dagster run, which MLflow runs are tagged with."),
    ("PENUMO_GPU_INSTANCE", "by the instance", "Set for jobs on a GPU instance: they fail if torch finds no CUDA."),
    ("PENUMO_CHECKPOINTS_URI", "by the search", "Set for trials: where their checkpoints are, to remove them from."),
    ("PENUMO_TRIAL_PROGRAM", "by the search", "Set for the trials of a tuning job: the program to run."),
    ("PENUMO_CHECKPOINT_FOLDER", "by the trial", "Set for those trials: each one's own place for checkpoints."),
)


def page() -> str:
    """The Markdown of the whole page."""
    parts = [INTRODUCTION]
    for section in SECTIONS:
        parts.append(f"## {section.title} (`{section.asset}`)\n\n")
        parts.append(section.note + "\n\n" if section.note else "")
        parts.append("| key | default | meaning |\n|---|---|---|\n")
        parts += [*rows(section), "\n"]
    parts.append(CHECKS_NOTE)
    for check in CHECKS:
        parts += rows(check, f"`{check.asset}` | ")
    parts.append(ENVIRONMENT_NOTE + "| variable | default | meaning |\n|---|---|---|\n")
    parts += [f"| `{name}` | {default} | {meaning} |\n" for name, default, meaning in ENVIRONMENT]
    return "".join(parts)


def rows(section: Section, start: str = "") -> list[str]:
    """A line of the table for each key."""
    return [
        f"| {start}`{key}` | {shown(default)} | {meaning.replace('|', '&#124;')}{choices(default)} |\n"
        for key, default, meaning in leaves(section.model)
        if key.partition(".")[0] not in section.elsewhere
    ]


def choices(value: Any) -> str:
    if not isinstance(value, Enum):
        return ""
    return f" One of: {', '.join(f'`{item.value}`' for item in type(value))}."


def shown(value: Any) -> str:
    if value in ("", [], {}, None):
        return "none" if value is None else "empty"
    if isinstance(value, Enum):
        value = value.value
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
