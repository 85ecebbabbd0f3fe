"""Models, endpoints and transform jobs, answered by a server that runs.

Wordings of refusals are the service's own where they are known from public threads ("Cannot create already existing",
"Could not find", "Cannot update in-progress endpoint").
"""

import tarfile
import tempfile
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penumo_assets_tests.aws.emulator.container import split
from penumo_assets_tests.aws.emulator.model_server import ModelServer
from penumo_assets_tests.aws.emulator.rules import ApiError, service_model, validate

MB = 2**20
NOUNS = {"Model": "model", "EndpointConfig": "endpoint configuration", "Endpoint": "endpoint", "TransformJob": "job"}
OPERATIONS = {
    *(f"{verb}{kind}" for verb in ("Create", "Describe", "Delete") for kind in ("Model", "EndpointConfig", "Endpoint")),
    *("UpdateEndpoint", "CreateTransformJob", "DescribeTransformJob"),
}


class Endpoint:
    """An endpoint and the server behind it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.status, self.reason, self.config = "Creating", "", config
        self.server: ModelServer | None = None

    @property
    def limit_mb(self) -> int:
        return 4 if "ServerlessConfig" in self.config["ProductionVariants"][0] else 25


class ServingApi:
    """Creates, describes, updates and removes what serves; ``start`` makes the server of a model's folder."""

    def __init__(
        self, client: Callable[[str], Any], scratch: Path, arn: str, start: Callable[..., ModelServer]
    ) -> None:
        self.start = start
        self.endpoints: dict[str, Endpoint] = {}
        self._client, self._scratch, self._arn = client, scratch, arn
        self._kept: dict[tuple[str, str], dict[str, Any]] = {}
        self._lock = threading.Lock()

    def answer(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        """Raises ApiError for what the service would refuse."""
        validate(operation, params)
        verb = next(verb for verb in ("Create", "Describe", "Delete", "Update") if operation.startswith(verb))
        kind = operation.removeprefix(verb)
        name = params[f"{kind}Name"]
        with self._lock:
            if verb != "Create":
                self._find(kind, name)
            elif (kind, name) in self._kept:
                raise ApiError("ValidationException", f"Cannot create already existing {self._called(kind, name)}.")
            getattr(self, f"_{verb.lower()}_{kind.lower()}", lambda *_: None)(name, params)
            if verb == "Create":
                self._kept[kind, name] = params
            if verb == "Delete" and kind != "Endpoint":
                del self._kept[kind, name]
            return self._described(kind, name) if verb == "Describe" else {f"{kind}Arn": self._arn_of(kind, name)}

    def invoke(self, name: str, body: bytes, content_type: str) -> tuple[int, bytes]:
        """The container's answer to a request.

        Raises
        ------
        ApiError
            If no endpoint of this name is in service, or the request is too large for it.
        """
        endpoint = self.endpoints.get(name)
        if endpoint is None or endpoint.server is None:
            raise ApiError("ValidationError", f"Endpoint {name} of account not found.")
        if len(body) > endpoint.limit_mb * MB:
            raise ApiError("RequestEntityTooLarge", f"The request is larger than {endpoint.limit_mb} MB", 413)
        return endpoint.server.post(body, content_type)

    def invoke_async(self, name: str, location: str, content_type: str) -> tuple[str, str]:
        """Where the answer to the film at ``location`` will be, or why there is none."""
        endpoint = self.endpoints[name]
        server, places = endpoint.server, endpoint.config["AsyncInferenceConfig"]["OutputConfig"]
        assert server is not None
        token = f"{datetime.now(UTC).timestamp():.6f}".replace(".", "-")
        answer, refused = (f"{places[key].rstrip('/')}/{token}.out" for key in ("S3OutputPath", "S3FailurePath"))

        def run() -> None:
            status, text = server.post(self._read(location), content_type)
            self._write(
                answer if status == 200 else refused, text if status == 200 else model_error(status, text).encode()
            )

        threading.Thread(target=run, daemon=True).start()
        return answer, refused

    def knows(self, prefix: str) -> bool:
        """Whether anything is kept whose name begins so."""
        return any(name.startswith(prefix) for kind, name in self._kept if kind != "TransformJob")

    def stop_all(self) -> None:
        for endpoint in self.endpoints.values():
            if endpoint.server is not None:
                endpoint.server.stop()

    def _create_model(self, name: str, params: dict[str, Any]) -> None:
        package = params["PrimaryContainer"]["ModelPackageName"]
        self._client("sagemaker").describe_model_package(ModelPackageName=package)

    def _create_endpointconfig(self, name: str, params: dict[str, Any]) -> None:
        (variant,) = params["ProductionVariants"]  # all that serverless and asynchronous endpoints take
        model = self._find("Model", variant["ModelName"])
        serverless = "ServerlessConfig" in variant
        if serverless == ("InstanceType" in variant):
            raise ApiError("ValidationException", "Give either ServerlessConfig or an instance type")
        if serverless and "VpcConfig" in model:
            raise ApiError("ValidationException", "Vpc Config is not supported for Serverless Inference.")
        if serverless and "AsyncInferenceConfig" in params:
            raise ApiError("ValidationException", "Asynchronous inference is not supported for serverless variants")

    def _create_endpoint(self, name: str, params: dict[str, Any]) -> None:
        config = self._find("EndpointConfig", params["EndpointConfigName"])
        self.endpoints[name] = Endpoint(config)
        self._begin(self._deploy, name, config)

    def _update_endpoint(self, name: str, params: dict[str, Any]) -> None:
        config, endpoint = self._find("EndpointConfig", params["EndpointConfigName"]), self._idle(name)
        if endpoint.status == "Failed":
            raise ApiError("ValidationException", f"Cannot update failed {self._called('Endpoint', name)}.")
        old, new = endpoint.config, config
        for fact in (_kind_of, lambda item: item["ProductionVariants"][0]["VariantName"]):
            if fact(old) != fact(new):
                raise ApiError("ValidationException", f"Cannot update from {fact(old)} to {fact(new)}.")
        endpoint.status = "Updating"
        self._begin(self._deploy, name, config)

    def _delete_endpoint(self, name: str, params: dict[str, Any]) -> None:
        self._idle(name).status = "Deleting"
        self._begin(self._end, name)

    def _delete_endpointconfig(self, name: str, params: dict[str, Any]) -> None:
        # The service only warns; whoever does so loses sight of what runs.
        if any(endpoint.config["EndpointConfigName"] == name for endpoint in self.endpoints.values()):
            raise ApiError("ValidationException", f"{self._called('EndpointConfig', name)} is in use.")

    def _create_transformjob(self, name: str, params: dict[str, Any]) -> None:
        self._find("Model", params["ModelName"])
        if params.get("MaxConcurrentTransforms", 1) * params.get("MaxPayloadInMB", 6) > 100:
            raise ApiError("ValidationException", "MaxConcurrentTransforms * MaxPayloadInMB must not exceed 100 MB")
        params |= {"TransformJobStatus": "InProgress"}
        self._begin(self._transform, params)

    def _deploy(self, name: str, config: dict[str, Any]) -> None:
        """Start the new server; only if it answers does the endpoint get it, and the old one end."""
        endpoint = self.endpoints[name]
        before = endpoint.server
        try:
            server = self._serve(config["ProductionVariants"][0]["ModelName"])
        except Exception as error:
            reason = f"The primary container for production variant did not pass the ping health check. {error}"[:1024]
            endpoint.reason, endpoint.status = reason, "Failed" if before is None else "InService"
            return
        endpoint.server, endpoint.config, endpoint.reason, endpoint.status = server, config, "", "InService"
        if before is not None:
            before.stop()

    def _end(self, name: str) -> None:
        server = self.endpoints[name].server
        if server is not None:
            server.stop()
        with self._lock:
            del self.endpoints[name], self._kept["Endpoint", name]

    def _transform(self, params: dict[str, Any]) -> None:
        source, output = params["TransformInput"], params["TransformOutput"]["S3OutputPath"].rstrip("/")
        try:
            server = self._serve(params["ModelName"])
            uri = source["DataSource"]["S3DataSource"]["S3Uri"]
            status, text = server.post(self._read(uri), source["ContentType"])
            server.stop()
            if status != 200:
                raise RuntimeError(model_error(status, text))
            self._write(f"{output}/{uri.rpartition('/')[2]}.out", text)
        except Exception as error:
            params |= {"TransformJobStatus": "Failed", "FailureReason": f"ClientError: {error}"[:1024]}
        else:
            params |= {"TransformJobStatus": "Completed"}

    def _serve(self, model: str) -> ModelServer:
        """Download a model's archive and start its server with the container's variables."""
        container = self._find("Model", model)["PrimaryContainer"]
        package = self._client("sagemaker").describe_model_package(ModelPackageName=container["ModelPackageName"])
        (inner,) = package["InferenceSpecification"]["Containers"]
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        (folder / "model.tar.gz").write_bytes(self._read(inner["ModelDataUrl"]))
        with tarfile.open(folder / "model.tar.gz") as tar:
            tar.extractall(folder / "model", filter="data")
        return self.start(folder, {**inner.get("Environment", {}), **container.get("Environment", {})})

    def _described(self, kind: str, name: str) -> dict[str, Any]:
        members = service_model().operation_model(f"Describe{kind}").output_shape.members
        values = self._kept[kind, name] | {f"{kind}Arn": self._arn_of(kind, name)}
        if kind == "Endpoint":
            endpoint = self.endpoints[name]
            values |= {"EndpointStatus": endpoint.status, "EndpointConfigName": endpoint.config["EndpointConfigName"]}
            values |= {"FailureReason": endpoint.reason} if endpoint.reason else {}
        return {key: value for key, value in values.items() if key in members}

    def _find(self, kind: str, name: str) -> dict[str, Any]:
        if (kind, name) not in self._kept:
            raise ApiError("ValidationException", f"Could not find {self._called(kind, name)}.")
        return self._kept[kind, name]

    def _idle(self, name: str) -> Endpoint:
        endpoint = self.endpoints[name]
        if endpoint.status not in {"InService", "Failed"}:
            raise ApiError("ValidationException", f"Cannot update in-progress {self._called('Endpoint', name)}.")
        return endpoint

    def _called(self, kind: str, name: str) -> str:
        return f'{NOUNS[kind]} "{self._arn_of(kind, name)}"'

    def _arn_of(self, kind: str, name: str) -> str:
        return f"{self._arn}:{NOUNS[kind].replace('endpoint configuration', 'endpoint-config')}/{name}"

    def _begin(self, run: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=run, args=arguments, daemon=True).start()

    def _read(self, uri: str) -> bytes:
        bucket, key = split(uri)
        return self._client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()

    def _write(self, uri: str, data: bytes) -> None:
        bucket, key = split(uri)
        self._client("s3").put_object(Bucket=bucket, Key=key, Body=data)


def _kind_of(config: Mapping[str, Any]) -> str:
    if "AsyncInferenceConfig" in config:
        return "asynchronous"
    return "serverless" if "ServerlessConfig" in config["ProductionVariants"][0] else "real-time"


def model_error(status: int, text: bytes) -> str:
    """How the service passes a container's refusal on."""
    side = "client" if status < 500 else "server"
    return f'Received {side} error ({status}) from primary with message "{text.decode("utf-8", "replace")}".'
