"""MLflow: where runs are tracked, and the registry that names the champion.

Job programs talk to MLflow themselves, through ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME``, so that one
job is one MLflow run wherever it runs, in a container too. The run of the Dagster run above them is dagster-mlflow's:
`dagster_run_log.py`.
"""

import os
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlparse

from dagster import ConfigurableResource, Failure
from pydantic import Field

from penumo_assets.jobs.tracking_address import (
    DEFAULT_EXPERIMENT,
    SECRET_VARIABLES,
    URI_VARIABLE,
    USER_VARIABLE,
    is_plain,
    is_web,
    redacted,
    uri_from_environment,
)
from penumo_assets.resources.storage.file_store import file_errors, folder_lock

CHAMPION = "champion"
PREVIOUS = "previous"
CHALLENGER = "challenger"
RULE_TAG = "decision_rule"
WITHDRAWN_TAG = "withdrawn"
_TRAININGS = {"mlflow.experimentKind": "custom_model_development"}  # MLflow's UI then opens with the training runs
_TRAINING_PAGES = "workflowType=machine_learning"  # the same for an address of one page


class Tracking(ConfigurableResource):
    """An MLflow tracking server or database, one experiment and one registered model."""

    tracking_uri: str = Field(
        default="",
        description="MLflow tracking URI that all may see, e.g. sqlite:////folder/mlflow.db or https://host; empty: "
        "MLFLOW_TRACKING_URI, read when it is used, because Dagster shows and stores what a resource is set to.",
    )
    artifact_root: str = Field(
        default="", description="Where a new experiment keeps artifacts; empty: the server decides."
    )
    experiment: str = Field(default=DEFAULT_EXPERIMENT, description="MLflow experiment of the training runs.")
    registered_model: str = Field(default="pneumonia-classifier", description="Name in the MLflow model registry.")
    ui_url: str = Field(default="", description="Address of the MLflow UI for links from asset pages; empty: no links.")
    dagster_ui: str = Field(default="", description="Address of Dagster's UI for links from MLflow; empty: no links.")

    def job_environment(self, dagster_run_id: str) -> dict[str, str]:
        """What a job needs to report to this experiment. Creates the experiment, and with it the database schema,
        here and once: parallel jobs that all try to create it break each other."""
        self.client()
        uri, user = self.address(), os.environ.get(USER_VARIABLE)
        return {
            **({URI_VARIABLE: uri} if is_plain(uri) else {}),
            **({USER_VARIABLE: user} if user else {}),
            "MLFLOW_EXPERIMENT_NAME": self.experiment,
            "PENUMO_DAGSTER_RUN_ID": dagster_run_id,
        }

    def job_secrets(self) -> tuple[str, ...]:
        """Names of the variables that a job needs beside these and that nobody may see in its description."""
        return (*SECRET_VARIABLES, *([] if is_plain(self.address()) else [URI_VARIABLE]))

    def address(self) -> str:
        """The tracking URI in force."""
        return self.tracking_uri or uri_from_environment()

    def run_address(self, run_id: str, artifact: str = "") -> str | None:
        """The run's page in the MLflow UI, or that of one of its artifacts; None where no UI is known."""
        if not self.ui_url:
            return None
        page = f"{quote(run_id, safe='')}/artifacts/{quote(artifact)}" if artifact else quote(run_id, safe="")
        return f"{self.ui_url.rstrip('/')}/#/experiments/{self.experiment_id()}/runs/{page}?{_TRAINING_PAGES}"

    def version_address(self, version: str) -> str | None:
        """The page of a version of the registered model in the MLflow UI; None where no UI is known."""
        page = f"{quote(self.registered_model, safe='')}/versions/{version}?{_TRAINING_PAGES}"
        return f"{self.ui_url.rstrip('/')}/#/models/{page}" if self.ui_url else None

    def dagster_run_address(self, run_id: str) -> str | None:
        """A run's page in Dagster's UI; None where no UI is known."""
        return f"{self.dagster_ui.rstrip('/')}/runs/{run_id}" if self.dagster_ui else None

    def asset_address(self, asset: str, partition: str) -> str:
        """The page of an asset's partition in Dagster's UI, for which ``dagster_ui`` must be known."""
        return f"{self.dagster_ui.rstrip('/')}/assets/{asset}?partition={quote(partition, safe='')}"

    def experiment_id(self) -> str:
        """The number of the experiment, which is made if there is none."""
        return str(self.client().get_experiment_by_name(self.experiment).experiment_id)

    def register(self, run_id: str, model_uri: str, rule: str, tags: Mapping[str, str], description: str) -> str:
        """The number of the version with this run's model and this decision rule; registered unless it is already.

        ``model_uri`` is the model as its run logged it (``models:/...``), so that MLflow can load what it registers.
        ``rule`` names the threshold and the calibration: the same weights with another rule are another version,
        because they decide otherwise. ``tags`` and ``description`` are those of the newest report of it.
        """
        from mlflow.exceptions import MlflowException

        client = self.client()
        try:
            client.get_registered_model(self.registered_model)
        except MlflowException:
            client.create_registered_model(self.registered_model, description="Pneumonia on frontal chest X-rays.")
        for known in self._versions(client):
            if known.run_id == run_id and known.tags.get(RULE_TAG) == rule:
                client.update_model_version(self.registered_model, known.version, description)
                for name, text in tags.items():
                    client.set_model_version_tag(self.registered_model, known.version, name, text)
                return str(known.version)
        version = client.create_model_version(
            self.registered_model,
            source=model_uri,
            run_id=run_id,
            model_id=model_uri.removeprefix("models:/"),
            tags={**tags, RULE_TAG: rule},
            description=description,
        )
        return str(version.version)

    def version_with(self, alias: str) -> str | None:
        """The version that holds an alias; None if nobody does."""
        holder = self._holder(self.client(), alias)
        return None if holder is None else str(holder.version)

    def point(self, version: str) -> str | None:
        """Give ``version`` the alias ``champion`` and the one before it ``previous``; the version of ``previous``.

        These two are moved, never removed, so `champion` never points to nothing. Pointing to the champion itself
        changes nothing. Who was the challenger is it no more.
        """
        client = self.client()
        client.get_model_version(self.registered_model, version)
        before = self.version_with(CHAMPION)
        if before != version:
            if before is not None:
                client.set_registered_model_alias(self.registered_model, PREVIOUS, before)
            client.set_registered_model_alias(self.registered_model, CHAMPION, version)
        if self.version_with(CHALLENGER) == version:
            self.challenge(None)
        return self.version_with(PREVIOUS)

    def challenge(self, version: str | None) -> None:
        """Give ``version`` the alias ``challenger``: registered, compared, and not in use. None: nobody has it."""
        if version is not None:
            self.client().set_registered_model_alias(self.registered_model, CHALLENGER, version)
        elif self.version_with(CHALLENGER) is not None:
            self.client().delete_registered_model_alias(self.registered_model, CHALLENGER)

    def withdraw(self, version: str, reason: str) -> None:
        """Mark a version that was rolled back, so that it is not chosen again by itself."""
        self.client().set_model_version_tag(self.registered_model, version, WITHDRAWN_TAG, reason)

    def reinstate(self, version: str) -> None:
        """Take the mark of `withdraw` away."""
        client = self.client()
        if WITHDRAWN_TAG in client.get_model_version(self.registered_model, version).tags:
            client.delete_model_version_tag(self.registered_model, version, WITHDRAWN_TAG)

    def withdrawn_runs(self) -> dict[str, str]:
        """Training runs whose model was rolled back, with the reason."""
        client = self.client()
        tagged = [version for version in self._versions(client) if WITHDRAWN_TAG in version.tags]
        return {version.run_id: version.tags[WITHDRAWN_TAG] for version in tagged}

    def _versions(self, client: Any) -> list[Any]:
        return list(client.search_model_versions(f"name = '{self.registered_model}'", max_results=1000))

    def _holder(self, client: Any, alias: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return client.get_model_version_by_alias(self.registered_model, alias)
        except MlflowException:
            return None

    def client(self) -> Any:
        """MLflow's client, with database and experiment made; raises Failure where MLflow cannot be used."""
        uri = self.address()
        if not uri:
            raise Failure("set MLFLOW_TRACKING_URI to an MLflow server that jobs can reach", allow_retries=False)
        if is_web(uri) and not is_plain(uri):  # it leads nowhere, and libraries would log it while they try
            raise Failure(f"{URI_VARIABLE}: percent-encode @, ? and # in it, and give no query", allow_retries=False)
        try:
            return self._opened(uri)
        except Exception as error:
            if is_plain(uri):
                raise
            raise Failure(f"MLflow at {URI_VARIABLE} cannot be used: {redacted(error, uri)}") from None

    def _opened(self, uri: str) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient, set_tracking_uri  # 2 s that loading the definitions does not need

        if uri.startswith("sqlite:") and (path := urlparse(uri).path[1:]):
            _create_database(Path(path))
        set_tracking_uri(uri)  # the registry looks logged models up there, whatever its client was given
        client = MlflowClient(uri)
        if client.get_experiment_by_name(self.experiment) is None:
            client.create_experiment(self.experiment, self.artifact_root or None, tags=_TRAININGS)
        return client


def _create_database(path: Path) -> None:
    """Put a new database in its place whole: nobody can use or mend one whose making broke off half way.

    MLflow makes it by some fifty changes of its schema, each of them for good.
    """
    with file_errors("MLflow's database"):
        if path.exists():
            return
        with folder_lock(path.parent), TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            if path.exists():
                return  # somebody else was at it
            made = Path(folder) / "mlflow.db"
            _migrate(made)
            temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
            try:
                with closing(sqlite3.connect(made)) as database:
                    database.execute("VACUUM INTO ?", (str(temporary),))
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


def _migrate(path: Path) -> None:
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
