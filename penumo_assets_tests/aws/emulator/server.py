"""One HTTP endpoint on loopback: the job API here, everything else by moto."""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.backends import get_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from penumo_assets_tests.aws import programs
from penumo_assets_tests.aws.emulator import permissions
from penumo_assets_tests.aws.emulator.api import OPERATIONS, JobApi
from penumo_assets_tests.aws.emulator.faults import FaultPlan, JobScript
from penumo_assets_tests.aws.emulator.job import JobHost
from penumo_assets_tests.aws.emulator.limits import Limits
from penumo_assets_tests.aws.emulator.model_server import our_serve, torchserve
from penumo_assets_tests.aws.emulator.rules import ApiError
from penumo_assets_tests.aws.emulator.runtime import invocation, is_invocation
from penumo_assets_tests.aws.emulator.serving import OPERATIONS as SERVING_OPERATIONS
from penumo_assets_tests.aws.emulator.serving import ServingApi

REGION, ACCOUNT = "eu-central-1", "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/penumo-job"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/penumo-jobs:emulated"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}
_QUOTAS = "ServiceQuotasV20190624"
_TARGETS = ("SageMaker", "Logs_20140328", _QUOTAS)  # prefixes of operations that may be answered here


@dataclass(frozen=True)
class Request:
    """A line of the request log."""

    operation: str
    name: str
    params: dict[str, Any]
    error: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Emulator:
    """The running server. ``requests`` is its log of the job API; faults are set by `fail` and `script`."""

    def __init__(
        self, port: int = 0, show: Callable[[Request], None] | None = None, *, grace_seconds: float = 120.0
    ) -> None:
        self.requests: list[Request] = []
        self.limits = Limits({f"ml.m5.xlarge for {kind} job usage": 4.0 for kind in ("processing", "training")})
        self._port, self._show, self._grace_seconds = port, show, grace_seconds
        self._faults = FaultPlan()
        self._server: BaseWSGIServer | None = None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._scratch = Path(tempfile.mkdtemp(prefix="penumo-sagemaker-"))
        self._clients: dict[str, Any] = {}
        self.api: JobApi
        self.serving: ServingApi

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> "Emulator":
        self._server = make_server(
            "127.0.0.1", self._port, self._dispatch, threaded=True, request_handler=_QuietRequestHandler
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        role = CREDENTIALS | {"AWS_REGION": REGION, "AWS_ENDPOINT_URL": self.url}
        host = JobHost(self.client, self._scratch, role, self._grace_seconds)
        self.api = JobApi(host, self._faults, self.limits, REGION, ACCOUNT)
        start = torchserve if programs.has_torchserve() else our_serve
        self.serving = ServingApi(self.client, self._scratch, f"arn:aws:sagemaker:{REGION}:{ACCOUNT}", start)
        return self

    def stop(self) -> None:
        self.api.stop_all()
        self.serving.stop_all()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def client(self, service: str) -> Any:
        """A boto3 client of this endpoint."""
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name=REGION,
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
                config=Config(max_pool_connections=32),
            )
        return self._clients[service]

    def environment(self, bucket: str) -> dict[str, str]:
        """The variables that set the application up for this endpoint; creates the bucket."""
        place = {"LocationConstraint": REGION}
        if bucket not in [item["Name"] for item in self.client("s3").list_buckets()["Buckets"]]:
            self.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
        return {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": self.url,
            "PENUMO_PROFILE": "aws",
            "PENUMO_ROOT": f"s3://{bucket}/penumo",
            "PENUMO_SAGEMAKER_ROLE": ROLE,
            "PENUMO_IMAGE": IMAGE,
            "PENUMO_TRAINING_INSTANCE_TYPE": "ml.m5.xlarge",  # here is no GPU, which a job on such an instance needs
            "PENUMO_POLL_SECONDS": "1",
        }

    def fail(self, operation: str, code: str, message: str = "as scripted", times: int = 1) -> None:
        """Answer the next requests of an operation with an error."""
        self._faults.fail(operation, code, message, times)

    def heal(self) -> None:
        """Forget faults that have not struck yet."""
        self._faults.clear()

    def script(self, name_part: str, script: JobScript) -> None:
        """Let the next job whose name contains ``name_part`` go by ``script``."""
        self._faults.script(name_part, script)

    def calls(self, operation: str) -> list[Request]:
        return [request for request in list(self.requests) if request.operation == operation]

    def _dispatch(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        if is_invocation(environ):
            self.requests.append(Request("InvokeEndpoint", environ["PATH_INFO"].split("/")[2], {}, ""))
            status, headers, content = invocation(self.serving, environ)
            start_response(status, headers)
            return [content]
        service, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        if simulation := permissions.simulation_of(environ):
            return self._simulate(simulation, start_response)
        if service not in _TARGETS:
            return self._moto(environ, start_response)
        fault = self._faults.take_api(operation)
        if fault is None and operation not in {
            *OPERATIONS,
            *SERVING_OPERATIONS,
            "FilterLogEvents",
            "ListServiceQuotas",
        }:
            return self._moto(environ, start_response)
        params = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"{}")
        error = ""
        try:
            if fault:
                raise ApiError(fault.code, fault.message, fault.status)
            api = self.serving if operation in SERVING_OPERATIONS else self.api
            answers = {"SageMaker": partial(api.answer, operation), _QUOTAS: self._list_quotas}
            status, body = "200 OK", answers.get(service, self._filter_log_events)(params)
        except ApiError as failed:
            error = failed.code
            status, body = f"{failed.status} Error", {"__type": failed.code, "message": failed.message}
        if service == "SageMaker":
            name = next(
                (value for key, value in params.items() if key.endswith(("JobName", "EndpointName", "ModelName"))), ""
            )
            self.requests.append(Request(operation, name, params, error))
            if self._show:
                self._show(self.requests[-1])
        start_response(status, [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps(body).encode()]

    def _simulate(self, fields: dict[str, str], start_response: Callable) -> Iterable[bytes]:
        try:
            if fault := self._faults.take_api(fields["Action"]):
                raise ApiError(fault.code, fault.message, 403)
            status, body = "200 OK", permissions.simulate(self.client("iam"), fields)
        except ApiError as failed:
            status, body = f"{failed.status} Error", permissions.error_of(failed)
        start_response(status, [("Content-Type", "text/xml")])
        return [body]

    def _list_quotas(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"Quotas": [{"QuotaName": name, "Value": value} for name, value in self.limits.quotas.items()]}

    def _filter_log_events(self, params: dict[str, Any]) -> dict[str, Any]:
        """moto's, with what it leaves out: streams chosen by prefix."""
        client, prefix = self.client("logs"), params.pop("logStreamNamePrefix", None)
        try:
            if prefix is not None:
                pages = client.get_paginator("describe_log_streams").paginate(
                    logGroupName=params["logGroupName"], logStreamNamePrefix=prefix
                )
                params["logStreamNames"] = [item["logStreamName"] for page in pages for item in page["logStreams"]]
                if not params["logStreamNames"]:
                    return {"events": [], "searchedLogStreams": []}
            answer = self._through_moto("FilterLogEvents", params)
        except client.exceptions.ResourceNotFoundException as error:
            raise ApiError("ResourceNotFoundException", "The specified log group does not exist.") from error
        script = self.api.script_of((prefix or "").rstrip("/"))
        if script and script.repeat_log_events:
            answer["events"] = [event for event in answer["events"] for _ in range(2)]
        return answer

    def _through_moto(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        backend = get_backend("logs")[ACCOUNT][REGION]
        events, token, searched = backend.filter_log_events(
            params["logGroupName"],
            params.get("logStreamNames", []),
            params.get("startTime"),
            params.get("endTime"),
            params.get("limit"),
            params.get("nextToken"),
            params.get("filterPattern", ""),
            True,
        )
        return {"events": events, "searchedLogStreams": searched} | ({"nextToken": token} if token else {})


class _QuietRequestHandler(MotoRequestHandler):
    def log_request(self, *arguments: Any) -> None:
        """Requests stand in the emulator's own log."""


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true answer of ``condition``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("waited too long")
        time.sleep(0.02)
    return found
