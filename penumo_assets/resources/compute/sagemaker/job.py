"""One attempt of a job on SageMaker: describe, create, stop, and fetch what it left."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from penumo_assets.jobs.contract import KEPT, RESULT_NAME, ResultFile, host_result_name
from penumo_assets.models.archive import extract_archive
from penumo_assets.models.errors import ModelError
from penumo_assets.resources.compute.bundle import publish_bundle
from penumo_assets.resources.compute.sagemaker.inputs import input_prefix, write_inputs
from penumo_assets.resources.compute.sagemaker.outcome import Description
from penumo_assets.resources.compute.sagemaker.request import creation_request, output_prefix
from penumo_assets.resources.compute.sagemaker.service import Service, created, described, stopped
from penumo_assets.resources.compute.spec import JobFailed, JobSpec
from penumo_assets.resources.storage.object_store import ObjectMissing

LOG_GROUP = {"processing": "/aws/sagemaker/ProcessingJobs", "training": "/aws/sagemaker/TrainingJobs"}
TRAINING_OUTPUT = "output.tar.gz"


class SageMakerJob:
    """A spec under the name of one of its attempts."""

    noun = "job"

    def __init__(self, service: Service, spec: JobSpec, attempt: int) -> None:
        self.service = service
        self.spec = spec
        self.attempt = attempt
        self.kind = spec.kind
        self.name = spec.job_name(service.settings.job_name_prefix, attempt)
        self.log_group = LOG_GROUP[spec.kind]
        self.output_prefix = output_prefix(spec, self.name)
        self.store = service.store
        self._client = service.client("sagemaker")

    def describe(self) -> Description | None:
        """How it stands; None if there is no job of this name.

        Raises
        ------
        JobFailed
            If it cannot be described. The job, if there is one, goes on.
        """
        if self.spec.kind == "processing":
            answer = described(self.name, lambda: self._client.describe_processing_job(ProcessingJobName=self.name))
            return None if answer is None else Description.of_processing(answer)
        answer = described(self.name, lambda: self._client.describe_training_job(TrainingJobName=self.name))
        return None if answer is None else Description.of_training(answer)

    def create(self, tags: Mapping[str, str]) -> bool:
        """Store the inputs and start the job; False if another process has created it first.

        Raises
        ------
        JobFailed
            If SageMaker refuses; ``transient`` if it may accept the same request later.
        """
        hosts, spec = self.service.settings.instance_count(self.spec), self.spec
        if spec.keeps and self.attempt > 1:
            kept = spec.kept_files(self._outputs(), lambda name: self.store.read(self._key(spec.result_output, name)))
            spec = replace(spec, documents={**spec.documents, KEPT: kept})
        manifests = write_inputs(self.store, spec, self.name, publish_bundle(self.store), hosts)
        request = creation_request(self.service, self.spec, self.name, manifests, tags)
        create = self._client.create_processing_job
        if self.spec.kind == "training":
            create = self._client.create_training_job
        try:
            return created(self.name, lambda: create(**request))
        except JobFailed as failed:
            if not failed.transient:  # else there may be a job all the same
                self.remove_inputs()
            raise

    def stop(self) -> None:
        """Ask the service to stop the job, if it runs."""
        if self.spec.kind == "processing":
            stopped(lambda: self._client.stop_processing_job(ProcessingJobName=self.name))
        else:
            stopped(lambda: self._client.stop_training_job(TrainingJobName=self.name))

    def remove_inputs(self) -> None:
        """Remove documents and manifests of a job that has ended: they name what landed, and so perhaps patients."""
        self.store.delete_folder(input_prefix(self.name))

    def has_result(self) -> bool:
        """A completed job has none any more once its outputs were discarded."""
        if self.spec.kind == "training":
            return self.store.exists(f"{self.output_prefix}/{TRAINING_OUTPUT}")
        return self.store.exists(f"{self.output_prefix}/{self.spec.result_output}/{RESULT_NAME}")

    def collect(self) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
        """The result's values, and the names below each output.

        Raises
        ------
        JobFailed
            If the job ended well without a valid result of every host.
        """
        try:
            if self.spec.kind == "training":
                self._unpack_training_output()
            values = self._result_values()
        except (ObjectMissing, ValidationError, ModelError) as error:
            raise JobFailed(f"job {self.name} ended without a valid {RESULT_NAME}") from error
        return values, self._outputs()

    def _result_values(self) -> dict[str, Any]:
        output = "data" if self.spec.kind == "training" else self.spec.result_output
        # All hosts of a training make one model, which the first one describes; others compute a share each.
        hosts = 1 if self.spec.kind == "training" else self.service.settings.instance_count(self.spec)
        names = [host_result_name(f"algo-{number}", first=number == 1) for number in range(1, hosts + 1)]
        results = [self.store.read(self._key(output, name)) for name in names]
        values = [ResultFile.model_validate_json(data).values for data in results]
        total = values[0]
        for more in values[1:]:
            total = _added(total, more)
        return total

    def _key(self, output: str, name: str) -> str:
        return f"{self.output_prefix}/{output}/{name}"

    def _outputs(self) -> dict[str, tuple[str, ...]]:
        """Names below each output. The prefix is this work's own, and nobody writes there any more."""
        return {output: self._names(f"{self.output_prefix}/{output}") for output in self.spec.outputs}

    def _names(self, prefix: str) -> tuple[str, ...]:
        return tuple(info.key.removeprefix(f"{prefix}/") for info in self.store.list_objects(prefix))

    def _unpack_training_output(self) -> None:
        """Put SageMaker's two archives where outputs are expected: the model as it is, the data file by file."""
        if self.store.exists(f"{self.output_prefix}/data/{RESULT_NAME}"):
            return
        if "model" in self.spec.outputs:
            self.store.copy(f"{self.output_prefix}/model.tar.gz", f"{self.output_prefix}/model/model.tar.gz")
        with tempfile.TemporaryDirectory() as scratch:
            archive, folder = Path(scratch) / TRAINING_OUTPUT, Path(scratch) / "data"
            self.store.download(f"{self.output_prefix}/{TRAINING_OUTPUT}", archive)
            extract_archive(archive, folder)
            # The archive holds the content of /opt/ml/output/data, at its top or below a folder of that name.
            result = next(folder.rglob(RESULT_NAME), None)
            if result is None:
                raise ObjectMissing(f"{TRAINING_OUTPUT} holds no {RESULT_NAME}")
            text = result.read_bytes()
            result.unlink()
            self.store.adopt_folder(result.parent, f"{self.output_prefix}/data")
            self.store.write(f"{self.output_prefix}/data/{RESULT_NAME}", text)  # last: then all is unpacked


def _added(one: Any, other: Any) -> Any:
    """Two hosts' values as one: numbers add up, lists are joined, of anything else the first stands."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: _added(one[name], other[name]) if name in other else one[name] for name in one} | {
            name: value for name, value in other.items() if name not in one
        }
    if isinstance(one, list) and isinstance(other, list):
        return one + other
    both_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return one + other if both_numbers else one
