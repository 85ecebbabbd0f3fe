"""SageMaker Runtime, which is REST where the job API is not: requests to an endpoint, and how refusals come back."""

import json
import re
from typing import Any
from urllib.parse import unquote

from penumo_assets_tests.aws.emulator.rules import ApiError
from penumo_assets_tests.aws.emulator.serving import ServingApi, model_error

_PATH = re.compile(r"/endpoints/([^/]+)/(invocations|async-invocations)")
Response = tuple[str, list[tuple[str, str]], bytes]


def is_invocation(environ: dict[str, Any]) -> bool:
    signed = environ.get("HTTP_AUTHORIZATION", "")
    return "/sagemaker/aws4_request" in signed and _PATH.fullmatch(environ["PATH_INFO"]) is not None


def invocation(api: ServingApi, environ: dict[str, Any]) -> Response:
    """The answer to InvokeEndpoint or InvokeEndpointAsync."""
    match = _PATH.fullmatch(environ["PATH_INFO"])
    assert match is not None
    name, kind = unquote(match[1]), environ.get("CONTENT_TYPE", "")
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        if match[2] == "invocations":
            status, text = api.invoke(name, body, kind)
            return _answered(status, text)
        location = environ["HTTP_X_AMZN_SAGEMAKER_INPUTLOCATION"]
        kind = environ.get("HTTP_X_AMZN_SAGEMAKER_CONTENT_TYPE", kind)
        output, failure = api.invoke_async(name, location, kind)
    except ApiError as refused:
        return _error(f"{refused.status} Error", refused.code, {"Message": refused.message})
    headers = [("X-Amzn-SageMaker-OutputLocation", output), ("X-Amzn-SageMaker-FailureLocation", failure)]
    return "202 Accepted", headers, json.dumps({"InferenceId": "of-the-emulator"}).encode()


def _answered(status: int, text: bytes) -> Response:
    if status == 200:
        return "200 OK", [("Content-Type", "application/json")], text
    said = {"OriginalStatusCode": status, "OriginalMessage": text.decode("utf-8", "replace")}
    return _error("424 Error", "ModelError", {"Message": model_error(status, text), **said, "LogStreamArn": ""})


def _error(status: str, code: str, body: dict[str, Any]) -> Response:
    headers = [("Content-Type", "application/json"), ("x-amzn-errortype", code)]
    return status, headers, json.dumps(body).encode()
