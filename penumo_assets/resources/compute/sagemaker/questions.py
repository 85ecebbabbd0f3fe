"""One film to a model on SageMaker: at once, through an endpoint's queue, or by a transform job."""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from penumo_assets.configs.endpoint import LARGEST_MB, Mode
from penumo_assets.resources.compute.sagemaker.machines import has_local_disk
from penumo_assets.resources.compute.sagemaker.service import TRANSIENT_ERRORS, Service
from penumo_assets.resources.endpoints import EndpointError, Variant
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore

QUEUE_SECONDS = 1200  # a request may take 900
Answer = tuple[int, str]


def ask_at_once(service: Service, endpoint: str, body: bytes, content_type: str) -> Answer:
    """HTTP status and text of a real-time or serverless endpoint's answer."""
    client = service.client("sagemaker-runtime")
    try:
        answer = client.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType=content_type)
        return 200, answer["Body"].read().decode("utf-8", "replace")
    except client.exceptions.ModelError as error:
        return int(error.response.get("OriginalStatusCode", 500)), error.response.get("OriginalMessage", str(error))
    except (ClientError, BotoCoreError) as error:
        raise failure(error) from error


def ask_by_queue(service: Service, endpoint: str, body: bytes, content_type: str) -> Answer:
    """The same of an asynchronous endpoint, whose answers and refusals are objects."""
    store, client = service.store, service.client("sagemaker-runtime")
    place = store.uri(_sample(store, endpoint, body))
    answer = sent(
        partial(client.invoke_endpoint_async, EndpointName=endpoint, InputLocation=place, ContentType=content_type)
    )
    said, refused = (answer[name].removeprefix(f"{store.root_uri}/") for name in ("OutputLocation", "FailureLocation"))
    deadline = time.monotonic() + QUEUE_SECONDS
    while time.monotonic() < deadline:
        if (text := _found(store, said)) is not None:
            return 200, text
        if (text := _found(store, refused)) is not None:
            status = re.search(r"\((\d{3})\)", text)
            return int(status[1]) if status else 500, text
        time.sleep(service.settings.poll_seconds)
    raise EndpointError(f"endpoint {endpoint} has left neither an answer nor a refusal in {QUEUE_SECONDS} s")


def ask_by_transform(
    service: Service, variant: Variant, tags: Sequence[dict[str, str]], body: bytes, content_type: str
) -> Answer:
    """The same of a transform job; one that runs already, or has left its answer, is not started again."""
    store, client = service.store, service.client("sagemaker")
    key = _sample(store, variant.name, body)
    for attempt in count(1):
        job = f"{variant.name}-canary-{attempt}"
        state = _transform(client, job)
        created = state is None
        if created:
            request = _transform_request(service, variant, job, key, content_type)
            sent(partial(client.create_transform_job, **request, Tags=tags))
        while state is None or state["TransformJobStatus"] in {"InProgress", "Stopping"}:
            time.sleep(service.settings.poll_seconds)
            state = _transform(client, job)
        if state["TransformJobStatus"] == "Completed":
            if (text := _found(store, f"{_output_prefix(job)}/{key.rpartition('/')[2]}.out")) is not None:
                return 200, text
        elif created:
            return 500, f"transform job {job} failed: {state.get('FailureReason', 'no reason given')}"
    raise AssertionError("a count has no end")


def encryption(service: Service) -> dict[str, str]:
    """The key of what is written to S3, where there is one."""
    return {"KmsKeyId": service.settings.kms_key} if service.settings.kms_key else {}


def sent(request: Callable[[], Any], expected: str = "") -> Any:
    """The answer to a request; None if it was refused in the ``expected`` words.

    Raises
    ------
    EndpointError
        If it was refused otherwise; ``transient`` if it may succeed later.
    """
    try:
        return request()
    except (ClientError, BotoCoreError) as error:
        if expected and expected in str(error).lower():
            return None
        raise failure(error) from error


def failure(error: ClientError | BotoCoreError) -> EndpointError:
    """What a refusal means, and what to change."""
    if not isinstance(error, ClientError):
        return EndpointError(f"SageMaker does not take the request: {error}", transient=True)
    details = error.response.get("Error", {})
    code, message = details.get("Code"), f"SageMaker refuses {error.operation_name}: {details.get('Message')}"
    if code == "ResourceLimitExceeded":
        message += (
            " Ask for more in Service Quotas (AWS's console), or choose less: instance_type, instance_count, "
            "memory_mb, max_concurrency"
        )
    if code in {"AccessDenied", "AccessDeniedException"}:
        message += " (docs/aws/iam_orchestrator.json, statement ServeTheChampion)"
    return EndpointError(message, transient=code in TRANSIENT_ERRORS or "in-progress" in message)


def _found(store: ObjectStore, key: str) -> str | None:
    try:
        return store.read(key).decode("utf-8", "replace")
    except ObjectMissing:
        return None


def _sample(store: ObjectStore, owner: str, body: bytes) -> str:
    """Store what is sent where the container's role may read it; its key."""
    key = f"inputs/{owner}/{hashlib.sha256(body).hexdigest()[:16]}"
    store.write(key, body)
    return key


def _output_prefix(job: str) -> str:
    return f"jobs/{job}/output"


def _transform(client: Any, job: str) -> dict[str, Any] | None:
    return sent(partial(client.describe_transform_job, TransformJobName=job), "could not find")


def _transform_request(service: Service, variant: Variant, job: str, key: str, content_type: str) -> dict[str, Any]:
    store, settings, kms_key = service.store, variant.settings, service.settings.kms_key
    disk = {} if has_local_disk(settings.instance_type) or not kms_key else {"VolumeKmsKeyId": kms_key}
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": store.uri(key)}}
    output = {"S3OutputPath": store.uri(_output_prefix(job)), "Accept": "application/json"}
    return {
        "TransformJobName": job,
        "ModelName": variant.name,
        "MaxConcurrentTransforms": 1,  # times the payload: 100 MB at most
        "MaxPayloadInMB": LARGEST_MB[Mode.batch],
        "BatchStrategy": "SingleRecord",
        "TransformInput": {"DataSource": source, "ContentType": content_type},
        "TransformOutput": output | encryption(service),
        "TransformResources": {"InstanceType": settings.instance_type, "InstanceCount": 1} | disk,
    }
