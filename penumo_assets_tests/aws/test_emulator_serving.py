"""The emulator refuses what SageMaker refuses of endpoints."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penumo_assets.resources.model_package import Approval, SageMakerModelPackages
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.emulator.model_server import ModelServer
from penumo_assets_tests.aws.emulator.server import IMAGE, ROLE, wait_for

INSTANCE = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
SERVERLESS = {"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 1}}
VPC = {"Subnets": ["subnet-0a1b2c3d"], "SecurityGroupIds": ["sg-0a1b2c3d"]}


class _Echo(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def may_start(emulator: Emulator) -> threading.Event:
    """Containers wait for it before they answer."""
    allowed = threading.Event()

    def start(*_: Any) -> ModelServer:
        allowed.wait(30)
        server = HTTPServer(("127.0.0.1", 0), _Echo)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return ModelServer(server.server_port, server.shutdown)

    emulator.serving.start = start
    return allowed


@pytest.fixture(scope="module")
def model(emulator: Emulator, may_start: threading.Event) -> Callable[..., None]:
    """Makes a model and an endpoint configuration of one name."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.environment("serving").items():
            patch.setenv(name, value)
        packages = SageMakerModelPackages(image=IMAGE)
        emulator.client("s3").put_object(Bucket="serving", Key="model.tar.gz", Body=EMPTY_TAR)
        package = packages.register("1", "s3://serving/model.tar.gz", Approval.approved, {})
    client = emulator.client("sagemaker")

    def make(name: str, variant: dict[str, Any], called: str = "champion", **changes: Any) -> None:
        client.create_model(
            ModelName=name, PrimaryContainer={"ModelPackageName": package}, ExecutionRoleArn=ROLE, **changes
        )
        variants = [{"VariantName": called, "ModelName": name, **variant}]
        client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)

    return make


EMPTY_TAR = bytes(10240)


def status(emulator: Emulator, name: str) -> str:
    return emulator.client("sagemaker").describe_endpoint(EndpointName=name)["EndpointStatus"]


def test_an_endpoint_goes_through_its_states(emulator: Emulator, model: Callable, may_start: threading.Event) -> None:
    client, runtime = emulator.client("sagemaker"), emulator.client("sagemaker-runtime")
    model("states", INSTANCE)
    client.create_endpoint(EndpointName="states", EndpointConfigName="states")
    assert status(emulator, "states") == "Creating"
    for refused in (client.delete_endpoint, lambda **name: client.update_endpoint(**name, EndpointConfigName="states")):
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
            refused(EndpointName="states")
    with pytest.raises(ClientError, match="Cannot create already existing endpoint"):
        client.create_endpoint(EndpointName="states", EndpointConfigName="states")
    with pytest.raises(ClientError, match="not found"):
        runtime.invoke_endpoint(EndpointName="states", Body=b"film")
    may_start.set()
    wait_for(lambda: status(emulator, "states") == "InService")
    answer = runtime.invoke_endpoint(EndpointName="states", Body=b"film", ContentType="application/dicom")
    assert answer["Body"].read() == b"film"
    with pytest.raises(ClientError, match="larger than 25 MB"):
        runtime.invoke_endpoint(EndpointName="states", Body=bytes(26 * 2**20))
    for changed, called in ((INSTANCE, "another"), (SERVERLESS, "champion")):
        model(f"states-{called}", changed, called)
        with pytest.raises(ClientError, match="Cannot update from"):
            client.update_endpoint(EndpointName="states", EndpointConfigName=f"states-{called}")
    client.delete_endpoint(EndpointName="states")
    wait_for(lambda: "states" not in emulator.serving.endpoints)
    with pytest.raises(ClientError, match="Could not find endpoint"):
        status(emulator, "states")


def test_a_serverless_endpoint_runs_in_no_vpc(model: Callable) -> None:
    with pytest.raises(ClientError, match="Vpc Config is not supported"):
        model("vpc", SERVERLESS, VpcConfig=VPC)


def test_what_is_named_must_be_there(emulator: Emulator) -> None:
    client = emulator.client("sagemaker")
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        client.create_endpoint(EndpointName="nothing", EndpointConfigName="nothing")
    with pytest.raises(ClientError, match="Could not find model"):
        client.delete_model(ModelName="nothing")
