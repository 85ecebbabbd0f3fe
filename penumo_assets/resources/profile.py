"""Which parts the application runs on: files, subprocesses and SQLite, or S3, SageMaker and an MLflow server.

``PENUMO_PROFILE`` chooses (``embedded``, the default, or ``aws``); the environment names the rest.
"""

import os
from pathlib import Path
from typing import Any

import penumo_assets
from penumo_assets.jobs.tracking_address import experiment_from_environment
from penumo_assets.resources.compute.local.runner import LocalJobRunner
from penumo_assets.resources.compute.sagemaker.start import SECRET_SUFFIX
from penumo_assets.resources.dagster_run_log import dagster_run_log
from penumo_assets.resources.endpoints import NoEndpoints
from penumo_assets.resources.model_package import ModelPackages, NoModelPackages, SageMakerModelPackages
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.resources.storage.root import Storage, open_store
from penumo_assets.resources.tracking import Tracking

# pydantic turns the texts into the fields' types.
_SAGEMAKER_FIELDS = {
    "PENUMO_SAGEMAKER_ROLE": "role_arn",
    "PENUMO_IMAGE": "image",
    "PENUMO_PROCESSING_INSTANCE_TYPE": "processing_instance_type",
    "PENUMO_TRAINING_INSTANCE_TYPE": "training_instance_type",
    "PENUMO_PREPARE_INSTANCES": "prepare_instance_count",
    "PENUMO_TRAINING_INSTANCES": "training_instance_count",
    "PENUMO_VOLUME_GB": "volume_gb",
    "PENUMO_MAX_RUNTIME_SECONDS": "max_runtime_seconds",
    "PENUMO_POLL_SECONDS": "poll_seconds",
    "PENUMO_SPOT": "use_spot",
    "PENUMO_MAX_WAIT_SECONDS": "max_wait_seconds",
    "PENUMO_ENCRYPT_TRAFFIC": "encrypt_traffic",
    "PENUMO_PIP_INDEX_URL": "pip_index_url",
    "PENUMO_JOB_NAME_PREFIX": "job_name_prefix",
    "PENUMO_MAX_RETRIES": "max_retries",
    "PENUMO_RETRY_SECONDS": "retry_seconds",
    "PENUMO_QUOTA_WAIT_HOURS": "quota_wait_hours",
    "PENUMO_KMS_KEY": "kms_key",
}


MLFLOW_URL = "http://127.0.0.1:5000"  # where `penumo mlflow` opens
DAGSTER_URL = "http://127.0.0.1:3000"  # where `penumo dev` does
REPORTS_PORT = 3001
REPORTS_URL = f"http://127.0.0.1:{REPORTS_PORT}"  # where `penumo dev` serves them


def home() -> Path:
    """The checkout this package runs from, or the working directory where it is installed."""
    checkout = Path(penumo_assets.__file__).resolve().parent.parent
    return checkout if (checkout / "workspace.yaml").exists() else Path.cwd()


def storage_root() -> str:
    """``PENUMO_ROOT``: a folder, file:// or s3://; by default ``.penumo`` in the checkout."""
    return os.environ.get("PENUMO_ROOT") or str(home() / ".penumo")


def root_store() -> ObjectStore:
    """The store at `storage_root`, for a command; what it writes to a bucket is encrypted as what runs write is."""
    return open_store(storage_root(), os.environ.get("PENUMO_KMS_KEY", ""))


def local_folder() -> Path:
    """Where things live that are files in any case: running jobs, embedded MLflow, the Dagster instance."""
    root = storage_root()
    return home() / ".penumo" if root.startswith("s3://") else _file_root(root)


def _file_root(root: str) -> Path:
    store = open_store(root)
    assert isinstance(store, FileStore)
    return store.root


def profile_resources() -> dict[str, Any]:
    """The resources of the profile that ``PENUMO_PROFILE`` names.

    Raises
    ------
    ValueError
        If there is no such profile.
    """
    name = os.environ.get("PENUMO_PROFILE") or "embedded"
    profiles = {"embedded": embedded_resources, "aws": aws_resources}
    if name not in profiles:
        raise ValueError(f"PENUMO_PROFILE is {name!r}: choose one of {', '.join(profiles)}")
    return profiles[name]()


def embedded_resources() -> dict[str, Any]:
    """Storage under ``PENUMO_ROOT``, jobs as subprocesses, MLflow on SQLite or ``MLFLOW_TRACKING_URI``."""
    local = local_folder()
    storage = Storage(root=storage_root(), reports_url=os.environ.get("PENUMO_REPORTS_URL") or REPORTS_URL)
    elsewhere = bool(os.environ.get("MLFLOW_TRACKING_URI"))
    return {
        "storage": storage,
        "jobs": LocalJobRunner(storage=storage, scratch=str(local / "scratch")),
        "tracking": Tracking(
            tracking_uri="" if elsewhere else f"sqlite:///{local / 'mlflow' / 'mlflow.db'}",
            artifact_root="" if elsewhere else (local / "mlflow" / "artifacts").as_uri(),
            **_tracking_names(mlflow_ui="" if elsewhere else MLFLOW_URL, dagster_ui=DAGSTER_URL),
        ),
        "mlflow": dagster_run_log,
        "packages": NoModelPackages(),
        "endpoints": NoEndpoints(),
    }


def aws_resources() -> dict[str, Any]:
    """Storage on S3, jobs on SageMaker, MLflow on a server that the jobs can reach.

    Nothing is checked here: what is missing is named when a run starts, so that the code location always loads.
    """
    # boto3, which embedded use does without
    from penumo_assets.resources.compute.sagemaker.endpoints import SageMakerEndpoints
    from penumo_assets.resources.compute.sagemaker.runner import SageMakerJobRunner
    from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings

    storage = Storage(
        root=storage_root(),
        kms_key=os.environ.get("PENUMO_KMS_KEY", ""),
        reports_url=os.environ.get("PENUMO_REPORTS_URL", ""),
    )
    given: dict[str, Any] = {
        field: os.environ[name] for name, field in _SAGEMAKER_FIELDS.items() if os.environ.get(name)
    }
    settings = SageMakerSettings(
        **given,
        subnets=_words("PENUMO_SUBNETS"),
        security_group_ids=_words("PENUMO_SECURITY_GROUPS"),
        tags=dict(word.partition("=")[::2] for word in _words("PENUMO_TAGS")),
        secret_arns={
            name.removesuffix(SECRET_SUFFIX): value
            for name, value in os.environ.items()
            if name.startswith(("PENUMO_", "MLFLOW_")) and name.endswith(SECRET_SUFFIX)
        },
    )
    return {
        "storage": storage,
        "jobs": SageMakerJobRunner(storage=storage, settings=settings),
        "endpoints": SageMakerEndpoints(storage=storage, settings=settings),
        "tracking": Tracking(**_tracking_names()),
        "mlflow": dagster_run_log,
        "packages": _model_packages(),
    }


def _tracking_names(mlflow_ui: str = "", dagster_ui: str = "") -> dict[str, str]:
    """The names of the environment; ``mlflow_ui`` and ``dagster_ui`` where it gives none."""
    return {
        "experiment": experiment_from_environment(),
        "registered_model": os.environ.get("PENUMO_REGISTERED_MODEL") or "pneumonia-classifier",
        "ui_url": os.environ.get("PENUMO_MLFLOW_UI") or mlflow_ui,
        "dagster_ui": os.environ.get("PENUMO_DAGSTER_UI") or dagster_ui,
    }


def _model_packages() -> ModelPackages:
    """SageMaker's model registry, where ``PENUMO_INFERENCE_IMAGE`` says which container serves a package."""
    image = os.environ.get("PENUMO_INFERENCE_IMAGE", "")
    group = os.environ.get("PENUMO_MODEL_PACKAGE_GROUP") or "pneumonia-classifier"
    return SageMakerModelPackages(image=image, group=group) if image else NoModelPackages()


def _words(variable: str) -> list[str]:
    return [word.strip() for word in os.environ.get(variable, "").split(",") if word.strip()]
