"""The asset `endpoint` over HTTP: real archives behind emulated endpoints, and what a person sees of them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penumo_assets.cli.main import main
from penumo_assets.cohort.publish import ManifestHead, dump_manifest, manifest_key
from penumo_assets.configs.endpoint import Mode
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.promotion import read_version
from penumo_assets.records import EndpointRecord
from penumo_assets.resources.endpoints import EndpointError
from penumo_assets.resources.profile import aws_resources
from penumo_assets.serving.canary import make_canary
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.emulator.model_server import ModelServer, our_serve
from penumo_assets_tests.aws.emulator.server import IMAGE
from penumo_assets_tests.house import House, failure_of, open_house
from penumo_assets_tests.registry import add_report, set_training_set


@pytest.fixture
def emulator(emulator: Emulator) -> Emulator:
    emulator.serving.start = our_serve  # networks of three thousand weights, which only this process has
    emulator.requests.clear()
    return emulator


@pytest.fixture
def house(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """An installation on AWS with a registered, approved champion, version 1."""
    with open_house(tmp_path) as house:
        bucket = "e" + "".join(character for character in tmp_path.name.lower() if character.isalnum())[-20:]
        for name, value in emulator.environment(bucket).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PENUMO_INFERENCE_IMAGE", IMAGE)
        monkeypatch.setenv("PENUMO_MODEL_PACKAGE_GROUP", bucket)
        monkeypatch.setenv("PENUMO_JOB_NAME_PREFIX", bucket)
        monkeypatch.setenv("PENUMO_POLL_SECONDS", "0.05")
        monkeypatch.setenv("PENUMO_SUBNETS", "subnet-0a1b2c3d")  # where a serverless endpoint cannot run
        monkeypatch.setenv("PENUMO_SECURITY_GROUPS", "sg-0a1b2c3d")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'root' / 'mlflow' / 'mlflow.db'}")
        house.resources |= {
            name: item for name, item in aws_resources().items() if name in ("storage", "packages", "endpoints")
        }
        set_training_set(house)
        promote(house, emulator, "resnet34", "train-a", 0.9)
        yield house


def promote(house: House, emulator: Emulator, architecture: str, job: str, quality: float) -> None:
    """Make a model the champion, and approve it as a person does."""
    add_report(house, architecture, job=job, validation_auc=quality)
    house.materialize("champion_model")
    package = read_version(house.store, "champion").package
    emulator.client("sagemaker").update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")


def launch(house: House, fails: bool = False, **config: Any) -> Any:
    """The page of the asset, or the reason of its failure."""
    result = house.materialize("endpoint", config={"endpoint": config}, fails=fails)
    if fails:
        return failure_of(result)
    (event,) = result.asset_materializations_for_node("endpoint")
    return {name: item.value for name, item in event.metadata.items()}


def changes(emulator: Emulator) -> list[str]:
    """What was asked for since the log was last cleared, but for descriptions and the model registry."""
    names = [request.operation for request in emulator.requests if "ModelPackage" not in request.operation]
    emulator.requests.clear()
    return [name for name in names if not name.startswith("Describe")]


def answered_by(house: House, mode: str = "realtime") -> str:
    """The version that answers a request to the endpoint now."""
    service, record = house.resources["endpoints"].open(), EndpointRecord.read(house.store)
    canary = make_canary(house.store, read_version(house.store, record.variant.version))
    status, text = service.ask(service.name(Mode(mode)), record.variant, canary.body, canary.content_type)
    assert status == 200, text
    return json.loads(text)["model_version"]


def test_it_is_off_unless_asked(house: House, emulator: Emulator) -> None:
    changes(emulator)
    assert launch(house)["state"].startswith("off: ")
    assert launch(house, mode="off")["state"].startswith("off: ")
    assert changes(emulator) == []


def test_the_embedded_profile_says_what_serves_there(tmp_path: Path) -> None:
    with open_house(tmp_path) as house:
        set_training_set(house)
        add_report(house, "resnet34")
        house.materialize("champion_model")
        assert launch(house)["state"].startswith("off: ")
        assert "penumo_assets.jobs.infer.serve" in launch(house, fails=True, mode="realtime")


def test_a_champion_is_brought_into_service_and_shown_and_an_unchanged_one_costs_nothing(
    house: House, emulator: Emulator
) -> None:
    changes(emulator)
    page = launch(house, mode="realtime")
    first = ["CreateModel", "CreateEndpointConfig", "CreateEndpoint", "InvokeEndpoint", "InvokeEndpoint"]
    assert changes(emulator) == first
    assert (page["state"], page["mode"], page["model_version"]) == ("InService", "realtime", "1")
    assert (page["previous_version"], page["largest_request_mb"], page["traffic_moved"]) == ("none", 25, True)
    assert "#/endpoints/" in page["endpoint"]
    assert "invoke-endpoint" in page["request"]
    for config in ({}, {"mode": "realtime"}):
        assert launch(house, **config)["traffic_moved"] is False
        assert changes(emulator) == []
    assert answered_by(house) == "1"


@pytest.mark.slow
def test_traffic_moves_after_the_canary_and_a_rollback_moves_it_back(house: House, emulator: Emulator) -> None:
    launch(house, mode="realtime")
    promote(house, emulator, "resnet50", "train-b", 0.95)
    changes(emulator)
    page = launch(house)
    assert (page["model_version"], page["previous_version"]) == ("2", "1")
    first = ["CreateModel", "CreateEndpointConfig", "CreateEndpoint", "InvokeEndpoint", "InvokeEndpoint"]
    assert changes(emulator)[:6] == [*first, "UpdateEndpoint"]
    assert answered_by(house) == "2"
    changes(emulator)
    done = CliRunner().invoke(main, ["rollback"])
    assert done.exit_code == 0, done.output
    assert done.output.endswith("endpoint: version 1 is in service\n")
    assert "UpdateEndpoint" in (calls := changes(emulator))
    assert not {"CreateEndpoint", "InvokeEndpoint"} & set(calls), "the variant before was kept, and accepted"
    assert answered_by(house) == "1"
    assert launch(house)["model_version"] == "1"


@pytest.mark.slow
def test_a_rollback_that_the_endpoint_cannot_follow_says_what_to_do(house: House, emulator: Emulator) -> None:
    launch(house, mode="realtime")
    promote(house, emulator, "resnet50", "train-b", 0.95)
    launch(house)
    emulator.fail("UpdateEndpoint", "AccessDeniedException", "is not authorized")
    done = CliRunner().invoke(main, ["rollback"])
    assert done.exit_code == 1
    assert "champion: version 1" in done.output
    assert "iam_orchestrator.json" in done.output
    assert "Materialize endpoint, not this command again" in done.output
    assert launch(house)["model_version"] == "1"
    assert answered_by(house) == "1"


@pytest.mark.slow
def test_a_container_that_answers_otherwise_than_its_archive_gets_no_traffic(
    house: House, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(house, mode="realtime")
    promote(house, emulator, "resnet50", "train-b", 0.95)

    def rounding(folder: Path, environment: Mapping[str, str]) -> ModelServer:
        server = our_serve(folder, environment)
        real = server.post
        server.post = lambda body, kind: _halved(*real(body, kind))  # type: ignore[method-assign]
        return server

    emulator.serving.start = rounding
    reason = launch(house, fails=True)
    assert "version 2 gets no traffic, version 1 serves on: the canary film's probabilities differ by" in reason
    assert answered_by(house) == "1"
    prefix = EndpointRecord.read(house.store).variant.name.partition("-v1")[0]
    assert [name for name in emulator.serving.endpoints if name.startswith(prefix)] == [prefix]
    assert not emulator.serving.knows(f"{prefix}-v2")


def _halved(status: int, text: bytes) -> tuple[int, bytes]:
    answer = json.loads(text)
    if status == 200:
        answer["probabilities"] = {label: value / 2 for label, value in answer["probabilities"].items()}
    return status, json.dumps(answer).encode()


@pytest.mark.slow
def test_a_container_that_does_not_start_leaves_its_reason(house: House, emulator: Emulator) -> None:
    def dead(folder: Path, environment: Mapping[str, str]) -> ModelServer:
        raise RuntimeError("no module named penumo_assets")

    emulator.serving.start = dead
    reason = launch(house, fails=True, mode="realtime")
    assert "version 1 does not start" in reason
    assert "no module named penumo_assets" in reason
    assert EndpointRecord.find(house.store) is None


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "limit"), [("serverless", 4), ("async", 1024), ("batch", 100)])
def test_the_other_modes_are_served_and_taken_down(house: House, emulator: Emulator, mode: str, limit: int) -> None:
    page = launch(house, mode=mode)
    assert (page["mode"], page["model_version"], page["largest_request_mb"]) == (mode, "1", limit)
    changes(emulator)
    assert launch(house)["traffic_moved"] is False
    assert changes(emulator) == []
    assert "take it down first" in launch(house, fails=True, mode="realtime")
    if mode != "batch":
        assert answered_by(house, mode) == "1"
    launch(house, mode="off")
    prefix = house.resources["endpoints"].open().name(Mode(mode))
    assert not emulator.serving.knows(prefix)
    assert launch(house)["state"].startswith("off")


def test_films_that_the_mode_does_not_take_are_named_before_anything_is_made(house: House, emulator: Emulator) -> None:
    row = ManifestRow(image_id="a", source="a.dcm", source_etag="e", source_bytes=8_000_000)
    head = ManifestHead(schema="penumo/manifest/1", settings=PrepareConfig().model_dump(mode="json"))
    house.store.write(manifest_key("ward"), dump_manifest(head, [row]))
    changes(emulator)
    reason = launch(house, fails=True, mode="serverless")
    assert "films of 7.6 MB do not fit into the 4 MB" in reason
    assert "choose mode realtime (25 MB)" in reason
    assert changes(emulator) == []


def test_a_champion_that_waits_for_a_person_is_not_served(house: House, emulator: Emulator) -> None:
    package = read_version(house.store, "champion").package
    emulator.client("sagemaker").update_model_package(
        ModelPackageArn=package, ModelApprovalStatus="PendingManualApproval"
    )
    changes(emulator)
    reason = launch(house, fails=True, mode="realtime")
    assert (
        f"version 1 is PendingManualApproval: approve its model package in SageMaker's registry ({package})" in reason
    )
    assert changes(emulator) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "text", "said"),
    [
        ("ResourceLimitExceeded", "'ml.m5.large for endpoint usage' is 0 Instances", "Service Quotas"),
        ("AccessDeniedException", "is not authorized to perform", "iam_orchestrator.json"),
    ],
)
def test_what_aws_refuses_names_what_to_change(
    house: House, emulator: Emulator, code: str, text: str, said: str
) -> None:
    emulator.fail("CreateEndpoint", code, text)
    reason = launch(house, fails=True, mode="realtime")
    assert text in reason
    assert said in reason
    assert launch(house, mode="realtime")["model_version"] == "1"


def test_a_film_beyond_the_endpoint_s_limit_is_refused_by_the_service(house: House) -> None:
    launch(house, mode="serverless")
    service, variant = house.resources["endpoints"].open(), EndpointRecord.read(house.store).variant
    with pytest.raises(EndpointError, match="larger than 4 MB"):
        service.ask(service.name(Mode.serverless), variant, bytes(5 * 2**20), "application/dicom")
    status, text = service.ask(service.name(Mode.serverless), variant, b"a letter", "application/dicom")
    assert (status, json.loads(text)["error"][:14]) == (400, "not_an_image: ")
