"""Which model is in use: gates, promotion, rollback, and a registry that always agrees with the record."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import boto3
import pytest
from click.testing import CliRunner
from dagster import AssetCheckSeverity, Failure
from moto import mock_aws

from penumo_assets.assets.champion import approval_of
from penumo_assets.assets.inference import chosen_model
from penumo_assets.cli.main import main
from penumo_assets.cohort.publish import ManifestHead, dump_manifest, manifest_key
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.metrics.report.content import GateResult
from penumo_assets.promotion import NoChampion, read_champion, read_version, rollback
from penumo_assets.resources.model_package import Approval, SageMakerModelPackages
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import StorageError
from penumo_assets_tests.house import House, failure_of, open_house
from penumo_assets_tests.registry import (
    add_report,
    alias,
    check_result,
    read_json_member,
    run_check,
    set_training_set,
)

STRICT = {"min_roc_auc_low": 1.0}


@pytest.fixture
def house(tmp_path: Path):
    with open_house(tmp_path) as house:
        set_training_set(house)
        yield house


@pytest.fixture
def two_champions(house: House) -> House:
    """Version 1 (resnet34) was the champion, version 2 (resnet50) is."""
    add_report(house, "resnet34", job="train-a")
    house.materialize("champion_model")
    add_report(house, "resnet50", job="train-b", validation_auc=0.95)
    house.materialize("champion_model")
    return house


def parts(house: House) -> tuple:
    return house.store, house.resources["tracking"], house.resources["packages"]


def assert_agree(house: House, champion: str, previous: str | None) -> None:
    record = read_champion(house.store)
    assert (record.version, record.previous) == (champion, previous)
    assert (alias(house, "champion"), alias(house, "previous")) == (champion, previous)
    assert run_check(house, "champion_agrees")


def test_an_architecture_that_fails_a_gate_is_not_chosen_and_does_not_hold_up_the_other(house: House) -> None:
    add_report(house, "resnet34", job="train-a", validation_auc=0.8)
    add_report(house, "resnet50", job="train-b", validation_auc=0.99, gates=STRICT)
    house.materialize("champion_model")
    assert read_champion(house.store).architecture == "resnet34"
    verdicts = {name: check_result(house, "gate_min_roc_auc_low", name) for name in ("resnet34", "resnet50")}
    assert verdicts["resnet50"].severity is AssetCheckSeverity.ERROR
    assert verdicts["resnet34"].severity is AssetCheckSeverity.WARN  # it was not asked for it


def test_a_gate_that_was_not_asked_for_is_not_green(house: House) -> None:
    add_report(house, "resnet34", gates={"min_roc_auc_low": 0.5, "min_specificity": None, "min_sensitivity": 1.0})
    results = {
        name: check_result(house, f"gate_{name}", "resnet34")
        for name in ("min_roc_auc_low", "min_specificity", "min_sensitivity")
    }
    (passed, off, failed) = ((item.passed, item.severity) for item in results.values())
    assert passed[0]
    assert off == (False, AssetCheckSeverity.WARN)
    assert failed == (False, AssetCheckSeverity.ERROR)
    rows = [{name: entry.value for name, entry in item.metadata.items()} for item in results.values()]
    assert [row["status"] for row in rows] == ["passed", "not asked for", "failed"]
    assert [row["limit"] for row in rows] == [0.5, "none", 1.0]
    assert rows[0]["value"] > 0.5
    for item, status in zip(results.values(), ("passed", "not asked for", "failed"), strict=True):
        assert item.description.startswith(status)


def test_a_version_shows_its_figures_and_follows_the_newest_report(house: House) -> None:
    add_report(house, "resnet34", job="train-a")
    house.materialize("champion_model")
    client = house.resources["tracking"].client()
    before = client.get_model_version("pneumonia-classifier", "1")
    assert "- ROC-AUC: 0." in before.description
    assert before.tags["report"] == "reports/resnet34/train-a"
    record = house.store.read_json("reports/resnet34/current.json")
    house.store.write("reports/resnet34/again/report.json", house.store.read(f"{record['prefix']}/report.json"))
    house.store.write_json("reports/resnet34/current.json", record | {"prefix": "reports/resnet34/again"})
    house.materialize("champion_model")
    after = client.get_model_version("pneumonia-classifier", "1")
    assert "evaluation/again/report.html" in after.description
    assert after.tags["report"] == "reports/resnet34/again"


def test_when_none_passes_the_champion_stays_and_the_gates_are_named(two_champions: House) -> None:
    for architecture, job in (("resnet34", "train-c"), ("resnet50", "train-d")):
        add_report(two_champions, architecture, job=job, gates=STRICT)
    message = failure_of(two_champions.materialize("champion_model", fails=True))
    assert "resnet34: did not pass min_roc_auc_low" in message
    assert "resnet50: did not pass min_roc_auc_low" in message
    assert_agree(two_champions, "2", "1")


def test_the_first_champion_has_no_previous_one(house: House) -> None:
    add_report(house, "resnet34")
    house.materialize("champion_model")
    assert_agree(house, "1", None)
    with pytest.raises(NoChampion, match="no previous one"):
        read_version(house.store, "previous")
    with pytest.raises(NoChampion, match="nothing to roll back to"):
        rollback(*parts(house))


def test_a_better_model_takes_over_and_the_one_before_becomes_previous(two_champions: House) -> None:
    assert_agree(two_champions, "2", "1")
    assert read_version(two_champions.store, "previous").architecture == "resnet34"
    assert read_version(two_champions.store, "1").training_job == "train-a"


def test_choosing_the_same_model_again_registers_nothing(two_champions: House) -> None:
    two_champions.materialize("champion_model")
    assert_agree(two_champions, "2", "1")


def test_the_same_weights_with_another_threshold_are_another_version(house: House) -> None:
    add_report(house, "resnet34", threshold=0.4)
    house.materialize("champion_model")
    add_report(house, "resnet34", threshold=0.6)
    house.materialize("champion_model")
    assert_agree(house, "2", "1")
    assert [read_version(house.store, version).rule.threshold for version in ("1", "2")] == [0.4, 0.6]


def test_a_report_about_another_training_set_is_left_out_by_name(house: House) -> None:
    add_report(house, "resnet34", validation_auc=0.99, digest="e" * 64)
    add_report(house, "resnet50", job="train-b", validation_auc=0.7)
    house.materialize("champion_model")
    assert read_champion(house.store).architecture == "resnet50"
    set_training_set(house, "f" * 64)
    assert "about another training set" in failure_of(house.materialize("champion_model", fails=True))


def test_a_crash_between_registry_and_record_is_seen_and_mended_by_the_next_run(
    two_champions: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = FileStore.swap

    def crash(store: FileStore, key: str, data: bytes, version: str | None) -> None:
        if key == "models/champion.json":
            raise StorageError("the disk is full")
        swap(store, key, data, version)

    add_report(two_champions, "resnet34", job="train-c", validation_auc=0.99)
    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "swap", crash)
        two_champions.materialize("champion_model", fails=True)
    assert alias(two_champions, "champion") == "3"
    assert not run_check(two_champions, "champion_agrees")
    two_champions.materialize("champion_model")
    assert_agree(two_champions, "3", "2")


def test_rollback_moves_alias_and_record_together_and_can_be_undone(two_champions: House) -> None:
    record, left = rollback(*parts(two_champions))
    assert (record.version, left) == ("1", "2")
    assert_agree(two_champions, "1", "2")
    rollback(*parts(two_champions))
    assert_agree(two_champions, "2", "1")


def test_a_rollback_killed_before_its_record_is_finished_by_the_next_and_not_taken_back(
    two_champions: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(store: FileStore, key: str, data: bytes, version: str | None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "swap", killed)
        with pytest.raises(KeyboardInterrupt):
            rollback(*parts(two_champions))
    assert alias(two_champions, "champion") == "1"
    assert read_champion(two_champions.store).version == "2"
    record, left = rollback(*parts(two_champions))
    assert (record.version, left) == ("1", "2")
    assert_agree(two_champions, "1", "2")
    assert set(two_champions.resources["tracking"].withdrawn_runs()) == {
        read_version(two_champions.store, "2").model.mlflow_run_id
    }


def test_what_was_rolled_back_is_not_chosen_again_by_itself(two_champions: House) -> None:
    rollback(*parts(two_champions), reason="misses small infiltrates")
    result = two_champions.materialize("champion_model")
    assert_agree(two_champions, "1", "2")
    (event,) = result.asset_materializations_for_node("champion_model")
    verdicts = {row.data["architecture"]: row.data["verdict"] for row in event.metadata["candidates"].records}
    assert verdicts["resnet50"] == "withdrawn: misses small infiltrates"
    two_champions.materialize("champion_model", config={"champion_model": {"allow_withdrawn": True}})
    assert_agree(two_champions, "2", "1")


def test_one_command_rolls_back(two_champions: House) -> None:
    done = CliRunner().invoke(main, ["rollback", "--reason", "too many misses"])
    assert done.exit_code == 0, done.output
    assert "champion: version 1 (resnet34); previous: version 2, withdrawn" in done.output
    assert_agree(two_champions, "1", "2")
    again = CliRunner().invoke(main, ["rollback", "--to", "1"])
    assert again.exit_code == 1
    assert "version 1 is the champion already" in again.output
    unknown = CliRunner().invoke(main, ["rollback", "--to", "9"])
    assert unknown.exit_code == 1
    assert "version 9 has never been a champion" in unknown.output
    assert_agree(two_champions, "1", "2")


def test_an_alias_moved_by_hand_is_refused_in_words_and_healed_by_the_command(two_champions: House) -> None:
    store, tracking, packages = parts(two_champions)
    tracking.client().set_registered_model_alias("pneumonia-classifier", "champion", "1")
    assert not run_check(two_champions, "champion_agrees")
    with pytest.raises(Failure, match=r"alias champion is at version 1, models/champion\.json says 2"):
        chosen_model(store, tracking, "champion")
    rollback(store, tracking, packages, "2")
    assert_agree(two_champions, "2", "1")


def test_aliases_numbers_and_architectures_name_a_model(two_champions: House) -> None:
    store, tracking, _ = parts(two_champions)
    versions = {wanted: chosen_model(store, tracking, wanted).version for wanted in ("champion", "previous", "1", "2")}
    assert versions == {"champion": "2", "previous": "1", "1": "1", "2": "2"}
    model = json.loads(store.read("reports/resnet34/current.json"))["model"]
    store.write_json("models/resnet34/current.json", model)
    assert chosen_model(store, tracking, "resnet34").version == "train-a"
    with pytest.raises(Failure, match="version 7 has never been a champion"):
        chosen_model(store, tracking, "7")


def test_without_a_champion_predictions_say_what_to_do(house: House) -> None:
    with pytest.raises(Failure, match="there is no champion: materialize champion_model first"):
        chosen_model(house.store, house.resources["tracking"], "champion")


def test_a_model_nobody_asked_enough_of_waits_for_a_person(two_champions: House) -> None:
    assert read_champion(two_champions.store).approval == "PendingManualApproval"
    gates = ("min_roc_auc_low", "min_sensitivity", "max_ece", "min_subgroup_roc_auc", "require_no_leakage")
    passed = [GateResult(gate=name, status="passed", limit=0.5, value=0.6, reason="") for name in gates]
    assert approval_of(passed) is Approval.approved
    assert approval_of(passed[:-1]) is Approval.pending
    for status, approval in (("failed", "rejected"), ("not_decidable", "rejected"), ("not_asked", "pending")):
        assert approval_of([passed[0].model_copy(update={"status": status}), *passed[1:]]) is Approval[approval]


def test_the_serving_archive_holds_rule_settings_and_origin(house: House) -> None:
    settings = PrepareConfig.parse({"enhance": {"apply_mask": True}}).model_dump(mode="json")
    head = ManifestHead(schema="penumo/manifest/1", settings=settings)
    house.store.write(manifest_key("ward"), dump_manifest(head, []))
    add_report(house, "resnet34", threshold=0.37)
    house.materialize("champion_model")
    archive = house.folder / "root" / "models" / "versions" / "1" / "model.tar.gz"
    assert read_json_member(archive, "decision_rule.json")["threshold"] == 0.37
    assert read_json_member(archive, "prepare_config.yaml")["enhance"]["apply_mask"] is True
    assert read_json_member(archive, "serving.json")["version"] == "1"


def test_the_archive_serves_with_its_own_code_and_nothing_else_of_ours(house: House, tmp_path: Path) -> None:
    """What SageMaker's container does: code/ on the path, model_fn on the folder. Dagster must not be needed."""
    add_report(house, "resnet34")
    house.materialize("champion_model")
    with tarfile.open(house.folder / "root" / "models" / "versions" / "1" / "model.tar.gz") as tar:
        tar.extractall(tmp_path / "model", filter="data")
    program = (
        "import sys; sys.modules['dagster'] = None; sys.modules['boto3'] = None\n"
        "import numpy as np, inference, penumo_assets\n"
        "from penumo_assets.imaging.npz_writer import npz_bytes\n"
        "from penumo_assets_tests.models.tiny import use_tiny_networks\n"
        "use_tiny_networks()\n"
        "endpoint = inference.model_fn(sys.argv[1])\n"
        "body = inference.input_fn(npz_bytes(np.full((224, 224, 4), 99, np.uint8)), 'application/x-npz')\n"
        "print(penumo_assets.__file__); print(inference.output_fn(inference.predict_fn(body, endpoint))[0])\n"
    )
    path = os.pathsep.join([str(tmp_path / "model" / "code"), str(Path(__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path}, capture_output=True, text=True, check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    used, answer = done.stdout.splitlines()
    assert Path(used).is_relative_to(tmp_path / "model" / "code")
    assert json.loads(answer)["model_version"] == "1"


def test_on_aws_a_version_is_one_model_package_and_a_rollback_rejects_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        house.resources["packages"] = SageMakerModelPackages(image="an-image")
        for architecture, job, quality in (("resnet34", "train-a", 0.9), ("resnet50", "train-b", 0.95)):
            add_report(house, architecture, job=job, validation_auc=quality)
            house.materialize("champion_model")
        house.materialize("champion_model")
        names = [read_version(house.store, version).package for version in ("1", "2")]
        client = boto3.client("sagemaker")

        def statuses() -> list[str]:
            return [client.describe_model_package(ModelPackageName=name)["ModelApprovalStatus"] for name in names]

        assert len(set(names)) == 2
        assert statuses() == ["PendingManualApproval"] * 2
        assert (
            len(client.list_model_packages(ModelPackageGroupName="pneumonia-classifier")["ModelPackageSummaryList"])
            == 2
        )
        rollback(*parts(house))
        assert statuses() == ["PendingManualApproval", "Rejected"]
