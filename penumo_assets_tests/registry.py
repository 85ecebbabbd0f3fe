"""An installation with evaluated models, made without training: for tests of what comes after a report."""

import json
import tarfile
from functools import cache
from pathlib import Path

import torch
from dagster import AssetCheckEvaluation, AssetSelection, materialize
from dagster._core.storage.tags import PARTITION_NAME_TAG

from penumo_assets.checks import ASSET_CHECKS
from penumo_assets.definitions import ASSETS
from penumo_assets.metrics.report.assemble import build_report
from penumo_assets.models.classifier import save_classifier
from penumo_assets.models.inputs import default_normalisation
from penumo_assets_tests.house import House
from penumo_assets_tests.metrics.synthetic import evaluation
from penumo_assets_tests.models.tiny import TinyNetwork

DATA = "d" * 64
OPEN = {"min_roc_auc_low": None, "min_sensitivity": None, "max_ece": None, "min_subgroup_roc_auc": None}


def set_training_set(house: House, digest: str = DATA) -> None:
    record = {"prefix": f"training_set/{digest[:16]}", "names": [], "digest": digest, "cohorts": ["ward"]}
    house.store.write_json("training_set/current.json", record)


def add_report(
    house: House,
    architecture: str,
    *,
    job: str = "train-1",
    validation_auc: float = 0.9,
    gates: dict | None = None,
    threshold: float = 0.4,
    digest: str = DATA,
) -> None:
    """A trained, evaluated model whose report says what the test wants it to say."""
    prefix = f"models/{architecture}/{job}"
    run_id, model_uri = _mlflow_run(house, job)
    _write_archive(house, architecture, f"{prefix}/model.tar.gz")
    model = {
        "prefix": prefix, "name": "model.tar.gz", "job_name": job, "dataset_digest": digest, "mlflow_run_id": run_id,
        "values": {"mlflow_model_uri": model_uri},
    }  # fmt: skip
    report = json.loads(_report(json.dumps(OPEN if gates is None else gates)))
    report["performance"]["validation"]["roc_auc"]["value"] = validation_auc
    report["decision_rule"] |= {"threshold": threshold, "temperature": 1.5}
    report["data"]["digest"] = digest
    reports = f"reports/{architecture}/{job}"
    house.store.write_json(f"{reports}/report.json", report)
    values = {"validation_roc_auc": validation_auc, "test_roc_auc": 0.8}
    record = {"prefix": reports, "names": ["report.json"], "model": model, "values": values}
    house.store.write_json(f"reports/{architecture}/current.json", record)


@cache
def _report(gates: str) -> str:
    """The report on a model under these gates: measuring takes half a second."""
    return json.dumps(build_report(evaluation(60, context={"gates": json.loads(gates), "phantoms": True})).as_json())


def run_check(house: House, name: str) -> bool:
    """Run one asset check by itself; whether it passed."""
    return check_result(house, name).passed


def check_result(house: House, name: str, partition: str | None = None) -> AssetCheckEvaluation:
    """Run one asset check by itself."""
    selection = AssetSelection.checks(*[key for check in ASSET_CHECKS for key in check.check_keys if key.name == name])
    result = materialize(
        [*ASSETS, *ASSET_CHECKS], selection=selection, instance=house.instance, resources=house.resources,
        tags={PARTITION_NAME_TAG: partition} if partition else None, raise_on_error=False,
    )  # fmt: skip
    (evaluated,) = result.get_asset_check_evaluations()
    return evaluated


def alias(house: House, name: str) -> str | None:
    return house.resources["tracking"].version_with(name)


def _mlflow_run(house: House, job: str) -> tuple[str, str]:
    """A run with a logged model; the same job has the same run."""
    client = house.resources["tracking"].client()
    experiment = client.get_experiment_by_name("pneumonia").experiment_id
    found = client.search_runs([experiment], f"tags.job = '{job}'")
    if found:
        return found[0].info.run_id, found[0].data.tags["model_uri"]
    run = client.create_run(experiment, tags={"job": job})
    model = client.create_logged_model(experiment, name="model", source_run_id=run.info.run_id)
    client.finalize_logged_model(model.model_id, "READY")
    client.set_tag(run.info.run_id, "model_uri", f"models:/{model.model_id}")
    return run.info.run_id, f"models:/{model.model_id}"


def _write_archive(house: House, architecture: str, key: str) -> None:
    metadata = {
        "schema": "penumo/model/1", "architecture": architecture, "classes": ["normal", "pneumonia"],
        "input_channels": 4, "image_size": 64, "normalisation": default_normalisation(4), "threshold": 0.5,
        "split_salt": "s", "dataset_digest": DATA, "metrics": {}, "versions": {}, "hyperparameters": {},
    }  # fmt: skip
    torch.manual_seed(0)
    folder = house.folder / "trained"
    save_classifier(folder, TinyNetwork(2, 4), metadata)
    with tarfile.open(house.folder / "model.tar.gz", "w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    house.store.write(key, (house.folder / "model.tar.gz").read_bytes())


def read_json_member(archive: Path, name: str) -> dict:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return json.loads(file.read())
