"""The handlers as SageMaker's inference container calls them: it needs its own kind of error to answer 400.

Any other exception of a handler is its answer 500. Reference: https://github.com/aws/sagemaker-inference-toolkit
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from penumo_assets.jobs.infer import handler
from penumo_assets.jobs.infer.handler import Endpoint, PreparedImage, model_fn, output_fn

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]

BAD_REQUEST = 400


def input_fn(body: bytes, content_type: str) -> PreparedImage | bytes:
    """`handler.input_fn`; what is refused is answered by status 400 and the reason."""
    with _answered():
        return handler.input_fn(body, content_type)


def predict_fn(image: PreparedImage | bytes, endpoint: Endpoint) -> dict[str, Any]:
    """`handler.predict_fn`; what is refused is answered by status 400 and the reason."""
    with _answered():
        return handler.predict_fn(image, endpoint)


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except handler.BadRequest as refused:
        try:
            from sagemaker_inference.errors import GenericInferenceToolkitError
        except ImportError:  # not in that container
            raise refused from None
        raise GenericInferenceToolkitError(BAD_REQUEST, str(refused)) from None
