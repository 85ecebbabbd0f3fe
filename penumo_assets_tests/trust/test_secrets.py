"""A secret is nowhere to be read: not in logs, events, resources, requests, objects, errors, or a process's arguments.

An installation on AWS's interfaces whose every secret is a planted word prepares a cohort, trains a model, and fails
in each way that could quote a secret. Then everything that was written or sent is searched.
"""

import json
import threading
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from dagster import DagsterInstance, Failure, serialize_value
from dagster._core.remote_representation.external_data import RepositorySnap

from penumo_assets.definitions import build_definitions
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.prepare.work import KEY_VARIABLE
from penumo_assets.jobs.training_log import TrainingLog
from penumo_assets.phantoms import write_cohort
from penumo_assets.resources.alerts import AlertError, post_webhook
from penumo_assets.resources.profile import aws_resources
from penumo_assets.resources.storage.object_store import StorageError
from penumo_assets.resources.storage.s3 import S3Store
from penumo_assets.resources.tracking import Tracking
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.house import House
from penumo_assets_tests.registry import set_training_set
from penumo_assets_tests.resources.bench import local_bench, sagemaker_bench, wait_until
from penumo_assets_tests.resources.s3_server import running_s3
from penumo_assets_tests.test_pipeline import STAGES
from penumo_assets_tests.trust.search import search, word

pytestmark = [pytest.mark.trust, pytest.mark.slow]

SECRETS = (
    KEY_VARIABLE,
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_TOKEN",
    "password of MLFLOW_TRACKING_URI",
    "path of PENUMO_ALERT_WEBHOOK_URL",
    "password of PENUMO_POSTGRES_URL",
)
PLANTED = {name: f"{word(number)}-and-some-more" for number, name in enumerate(SECRETS, 9000)}
PASSWORD = PLANTED["password of MLFLOW_TRACKING_URI"]
PREPARE: dict[str, Any] = {"npz": {"filename": "{image_id}"}}
DEAD = "127.0.0.1:9"  # discard: nobody listens


class MlflowServer:
    """As much of a tracking server as finding an experiment takes; remembers how it was asked."""

    def __init__(self) -> None:
        self.authorizations: list[str] = []
        remember = self.authorizations.append

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                remember(self.headers.get("Authorization", ""))
                experiment = {"experiment_id": "7", "name": "pneumonia", "lifecycle_stage": "active"}
                body = json.dumps({"experiment": experiment}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep the tests' output quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def mlflow() -> Iterator[MlflowServer]:
    server = MlflowServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def settings(emulator: Emulator, mlflow: MlflowServer) -> Iterator[dict[str, str]]:
    """The environment of an installation, every secret of which is planted."""
    client = emulator.client("secretsmanager")
    values = emulator.environment("secrets") | {name: PLANTED[name] for name in SECRETS if " " not in name}
    for name in (KEY_VARIABLE, "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        secret = PASSWORD if name == "MLFLOW_TRACKING_PASSWORD" else PLANTED[name]
        values[f"{name}_SECRET_ARN"] = client.create_secret(Name=name, SecretString=secret)["ARN"]
    values |= {
        "MLFLOW_TRACKING_URI": f"http://someone:{PASSWORD}@{mlflow.host}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "PENUMO_ALERT_WEBHOOK_URL": f"http://{DEAD}/hooks/{PLANTED['path of PENUMO_ALERT_WEBHOOK_URL']}",
        "PENUMO_POSTGRES_URL": f"postgresql://dagster:{PLANTED['password of PENUMO_POSTGRES_URL']}@{DEAD}/dagster",
        "PENUMO_POLL_SECONDS": "0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            patch.setenv(name, "")  # what the address's user and password go into is undone with the rest
            patch.delenv(name)
        for name, value in values.items():
            patch.setenv(name, value)
        yield values


@pytest.fixture(scope="module")
def written(
    emulator: Emulator, settings: dict[str, str], mlflow: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Everything that this installation wrote, sent or showed, gathered in one folder."""
    folder = tmp_path_factory.mktemp("secrets")
    home, written = folder / "written" / "dagster", folder / "written"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    write_cohort(folder / "films", "ward", patients=2, seed=3, dicom=True)
    with DagsterInstance.from_config(str(home)) as instance:
        house = House(instance, aws_resources(), folder)
        shown = RepositorySnap.from_def(build_definitions().get_repository_def())
        (written / "definitions.json").write_text(serialize_value(shown))
        house.land("ward", folder / "films")
        house.materialize(*STAGES, partition="ward", config={"prepare_cohort": PREPARE})
        broken = {"prepare_cohort": PREPARE | {"segment": {"backend": "pspnet"}}}
        house.materialize(*STAGES, partition="ward", config=broken, fails=True)
        set_training_set(house)
        house.materialize("trained_model", partition="resnet34", fails=True)  # the training set has no shards
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{PASSWORD}@{DEAD}")
            house.materialize("trained_model", partition="resnet34", fails=True)
    for prefix in ("code", "inputs", "jobs", "manifests", "models", "training_set", "raw"):
        for info in house.store.list_objects(prefix):
            house.store.download(info.key, written / "bucket" / info.key)
    requests = [asdict(request) for request in emulator.requests]
    (written / "requests.json").write_text(json.dumps(requests, default=str))
    (written / "cloudwatch.json").write_text(json.dumps(log_events(emulator)))
    (written / "errors.txt").write_text("\n".join(errors()))
    return written


def log_events(emulator: Emulator) -> list[str]:
    client, found = emulator.client("logs"), []
    for group in client.describe_log_groups()["logGroups"]:
        for stream in client.describe_log_streams(logGroupName=group["logGroupName"])["logStreams"]:
            events = client.get_log_events(logGroupName=group["logGroupName"], logStreamName=stream["logStreamName"])
            found += [event["message"] for event in events["events"]]
    return found


def errors() -> list[str]:
    """What is said of a webhook, a bucket and a tracking server that do not do as they should, tracebacks included."""

    def webhook() -> None:
        import os

        post_webhook(os.environ["PENUMO_ALERT_WEBHOOK_URL"], {"text": "failed"})

    def training() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{PASSWORD}@{DEAD}")
            with TrainingLog().run({}):
                pass

    def bucket() -> None:
        with running_s3() as server, pytest.MonkeyPatch.context() as patch:
            server.start_over("films", "eu-central-1")
            server.fail("GET", "SignatureDoesNotMatch")
            patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
            S3Store("films", "penumo").read("manifests/ward.jsonl")

    cases: list[tuple[Callable[[], None], type[Exception]]] = [
        (webhook, AlertError),
        (training, JobError),
        (bucket, StorageError),
    ]
    texts = []
    for fail, kind in cases:
        with pytest.raises(kind) as caught:
            fail()
        texts.append("".join(traceback.format_exception(caught.value)))
    return texts


def test_no_secret_stands_in_what_was_written_sent_or_shown(written: Path) -> None:
    names = {value.split("-")[0]: name for name, value in PLANTED.items()}
    found = search(written, lambda _: False, PLANTED.values())
    assert not {names.get(word, word): sorted(places) for word, places in found.items()}


def test_what_is_searched_is_there(written: Path) -> None:
    requests = json.loads((written / "requests.json").read_text())
    kinds = {request["operation"] for request in requests}
    assert kinds >= {"CreateProcessingJob", "DescribeProcessingJob"}
    assert "pspnet" in (written / "cloudwatch.json").read_text()
    assert list((written / "bucket" / "code").rglob("bundle.tar.gz"))
    assert "Tracking" in (written / "definitions.json").read_text()
    assert (written / "dagster" / "storage").exists() or list((written / "dagster").rglob("*.db"))


def test_the_tracking_servers_password_reaches_the_server_and_the_job_but_not_its_description(
    emulator: Emulator, settings: dict[str, str], mlflow: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")  # MLflow prefers the password to it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings["MLFLOW_TRACKING_URI"])
    tracking = Tracking()
    environment, secrets = tracking.job_environment("a-run"), tracking.job_secrets()
    assert environment["MLFLOW_TRACKING_URI"] == f"http://{mlflow.host}"
    assert f"Basic {b64encode(f'someone:{PASSWORD}'.encode()).decode()}" in mlflow.authorizations
    arns = {name: settings[f"{name}_SECRET_ARN"] for name in secrets}
    bench = sagemaker_bench(emulator, tmp_path, monkeypatch, secret_arns=arns)
    bench.run(kind="training", environment=environment, secrets=secrets)
    (request,) = [
        call
        for call in emulator.calls("CreateTrainingJob")
        if call.name.startswith(bench.runner.settings.job_name_prefix)
    ]
    assert request.params["Environment"].items() >= {
        ("MLFLOW_TRACKING_URI", f"http://{mlflow.host}"),
        ("MLFLOW_TRACKING_USERNAME", "someone"),
        ("MLFLOW_TRACKING_PASSWORD_SECRET_ARN", settings["MLFLOW_TRACKING_PASSWORD_SECRET_ARN"]),
    }


SECRET_ADDRESSES = [
    f"postgresql://mlflow:{PASSWORD}@{DEAD}/mlflow",
    f"postgresql://{DEAD}/mlflow?user=mlflow&password={PASSWORD}",
    f"postgres://mlflow:{PASSWORD}@{DEAD}/mlflow",
    f"sqlite+pysqlcipher://:{PASSWORD}@/mlflow.db",
    f"//mlflow:{PASSWORD}@{DEAD}/mlflow",
    f"http://mlflow:#{PASSWORD}@{DEAD}",
    f"http://mlflow:/{PASSWORD}@{DEAD}",
    f"http://mlflow:\u2100{PASSWORD}@{DEAD}",  # urllib's own error quotes it
    f"https://{DEAD}/?token={PASSWORD}",
]


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_an_address_that_may_hold_a_password_goes_to_the_job_as_a_secret(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr(Tracking, "client", lambda self: None)
    tracking = Tracking()
    environment = tracking.job_environment("a-run")
    assert "MLFLOW_TRACKING_URI" not in environment
    assert PASSWORD not in json.dumps(environment)
    assert "MLFLOW_TRACKING_URI" in tracking.job_secrets()


@pytest.mark.parametrize("address", ["sqlite:////a@b/mlflow.db", "file:///mlruns", "./mlruns", f"HTTP://{DEAD}/mlflow"])
def test_an_address_without_a_password_is_shown_in_the_jobs_description(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracking, "client", lambda self: None)
    tracking = Tracking(tracking_uri=address)
    assert tracking.job_environment("a-run")["MLFLOW_TRACKING_URI"] == address
    assert "MLFLOW_TRACKING_URI" not in tracking.job_secrets()


def _ask_the_registry() -> None:
    Tracking().version_with("champion")


def _begin_a_training() -> None:
    with TrainingLog().run({}):
        pytest.fail("nobody took the run")


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
@pytest.mark.parametrize("ask", [_ask_the_registry, _begin_a_training])
def test_no_error_of_the_tracking_server_quotes_such_an_address(
    address: str, ask: Callable[[], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)  # as in a new process
    with pytest.raises((Failure, JobError), match="MLFLOW_TRACKING_URI") as caught:
        ask()
    text = "".join(traceback.format_exception(caught.value)) + str(getattr(caught.value, "description", ""))
    assert PASSWORD not in text + caplog.text


def test_a_local_jobs_processes_have_no_secret_among_their_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, PLANTED[KEY_VARIABLE])
    bench = local_bench(tmp_path, monkeypatch)
    job = threading.Thread(target=bench.run, args=("wait",), kwargs={"secrets": (KEY_VARIABLE,)})
    job.start()
    wait_until(bench.starts)
    program = psutil.Process(bench.process_id())
    supervisor = program.parent()
    assert supervisor is not None
    arguments = [Path(f"/proc/{process.pid}/cmdline").read_bytes() for process in (program, supervisor)]
    environment = Path(f"/proc/{program.pid}/environ").read_bytes()
    bench.open_gate()
    job.join()
    assert PLANTED[KEY_VARIABLE].encode() in environment
    assert not any(PLANTED[KEY_VARIABLE].encode() in text for text in arguments)
