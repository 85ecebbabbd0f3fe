"""What MLflow gets to know of a training, the classifier's or the segmenter's.

Without ``MLFLOW_TRACKING_URI`` nothing is sent anywhere.

A training is a run of its own, wherever it runs: it cannot write to the orchestrator's run, but names it as its parent.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.shards import IMAGE_SHAPE, DatasetFile
from penumo_assets.jobs.tracking_address import (
    URI_VARIABLE,
    experiment_from_environment,
    redacted,
    uri_from_environment,
)

SYSTEM_METRICS_SECONDS = 5
DIGEST_LENGTH = 36  # MLflow's limit

logger = logging.getLogger(__name__)


def lineage() -> dict[str, str]:
    """Tags that lead from a run back to the code, the job and the Dagster run, as far as the environment tells.

    ``dagster_run_id`` is the tag by which dagster-mlflow finds its own run, the parent of this one: so it is not used.
    """
    tags = {
        "penumo.code_version": os.environ.get("PENUMO_CODE_VERSION", ""),
        "penumo.job_name": os.environ.get("TRAINING_JOB_NAME", ""),
        "penumo.dagster_run_id": os.environ.get("PENUMO_DAGSTER_RUN_ID", ""),
        "mlflow.parentRunId": os.environ.get("PENUMO_MLFLOW_PARENT_RUN_ID", ""),
    }
    return {name: value for name, value in tags.items() if value}


class TrainingLog:
    """An MLflow run, or nothing where no tracking server is configured.

    Once the run has begun, a server that fails costs log lines, not the training.
    """

    def __init__(self) -> None:
        self.run_id: str | None = None
        self._mlflow: Any = None
        self._uri = ""

    @contextmanager
    def run(self, tags: dict[str, str], run_id: str | None = None) -> Iterator["TrainingLog"]:
        """A run for as long as the block lasts, with ``tags`` and those of `lineage`; FAILED where it raises.

        ``run_id`` goes on with a run after a restart; without it MLflow takes ``MLFLOW_RUN_ID`` or begins a new one.

        Raises
        ------
        JobError
            If the tracking server named by MLFLOW_TRACKING_URI does not answer.
        """
        self._start(run_id, lineage() | tags)
        status = "FAILED"
        try:
            yield self
            status = "FINISHED"
        finally:
            self._attempt(lambda mlflow: mlflow.end_run(status))

    def _start(self, run_id: str | None, tags: dict[str, str]) -> None:
        uri = uri_from_environment()
        if not uri:
            return
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # People read the job's log: bars drawn again and again, and a monitor that reports itself, hide the rest.
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow

        logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
        try:
            mlflow.set_tracking_uri(uri)
            mlflow.set_experiment(experiment_from_environment())
            mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_SECONDS)
            run = mlflow.start_run(
                run_id=run_id,
                run_name=None if run_id else os.environ.get("TRAINING_JOB_NAME"),
                tags=tags,
                log_system_metrics=True,
            )
        except Exception as error:
            raise JobError(f"MLflow at {URI_VARIABLE} cannot be used: {redacted(error, uri)}") from None
        self._mlflow, self._uri, self.run_id = mlflow, uri, run.info.run_id

    def parameters(self, values: dict[str, Any]) -> None:
        self._attempt(lambda mlflow: mlflow.log_params(values))

    def dataset(self, dataset: DatasetFile) -> None:
        """The data as an MLflow input: its digest, and a table of images per split and class."""

        counts = pd.DataFrame(
            [(name, label, n) for name, split in dataset.splits.items() for label, n in split.counts.items()],
            columns=["split", "class", "images"],
        ).astype({"images": "float64"})

        def send(mlflow: Any) -> None:
            source = mlflow.data.from_pandas(counts, name="training_set", digest=dataset.digest[:DIGEST_LENGTH])
            mlflow.log_input(source, context="training")
            mlflow.log_dict(dataset.model_dump(by_alias=True), "dataset.json")

        self._attempt(send)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._attempt(lambda mlflow: mlflow.log_metrics(dict(values), step=step))

    def epoch(self, record: dict[str, Any]) -> None:
        """One epoch's figures, at their step."""
        values = {name: value for name, value in record.items() if name != "epoch" and value is not None}
        self.metrics(values, record["epoch"])

    def finish(
        self,
        best: dict[str, Any],
        history: list[dict[str, Any]],
        targets: np.ndarray,
        probabilities: np.ndarray,
        classes: list[str],
    ) -> None:
        """The best epoch's figures and the curves on validation."""
        values = {f"best_{name}": value for name, value in best.items() if value is not None}
        self._attempt(lambda mlflow: mlflow.log_metrics(values))
        if self._mlflow is None:
            return
        from penumo_assets.jobs.train.figures import training_figures

        threshold = best["validation_threshold"]
        for name, figure in training_figures(history, targets, probabilities, classes, threshold).items():
            self._attempt(lambda mlflow, f=figure, n=name: mlflow.log_figure(f, f"figures/{n}.png"))

    def model(self, folder: Path, classes: int) -> str | None:
        """The model with its signature, built from code and safetensors; its ``models:/`` URI."""
        sent: list[str] = []

        def send(mlflow: Any) -> None:
            from mlflow.models import ModelSignature
            from mlflow.types import Schema, TensorSpec

            images = TensorSpec(np.dtype("uint8"), (-1, *IMAGE_SHAPE))
            probabilities = TensorSpec(np.dtype("float64"), (-1, classes))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*input example was not provided")  # the signature is given
                info = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(Path(__file__).parent / "train" / "mlflow_model.py"),
                    artifacts={"classifier": str(folder)},
                    signature=ModelSignature(inputs=Schema([images]), outputs=Schema([probabilities])),
                    pip_requirements=["torch", "torchvision", "safetensors", "pydantic", "penumo-assets"],
                )
            sent.append(info.model_uri)

        self._attempt(send)
        return sent[0] if sent else None

    def _attempt(self, send: Callable[..., Any]) -> None:
        if self._mlflow is None:
            return
        try:
            send(self._mlflow)
        except Exception as error:
            logger.warning("MLflow did not take a record: %s", redacted(error, self._uri))
