"""How obstore reaches a bucket: at the endpoint that boto3 has found, with its credentials."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlparse

import boto3
from obstore.store import S3Store as Transfer

from penumo_assets.resources.storage.s3_credentials import Credentials

_AWS_HOST = re.compile(r"s3([.-][a-z0-9-]+)?\.amazonaws\.com(\.cn)?")


def open_transfer(
    session: boto3.Session,
    *,
    region: str,
    address: str,
    bucket: str,
    kms_key: str,
    max_retries: int,
    read_timeout: int,
) -> Transfer:
    """A client of ``bucket`` at the endpoint ``address``; ``kms_key`` encrypts what it writes, if it is not empty.

    ``read_timeout`` in seconds.
    """
    endpoint = urlparse(address)
    hosted = bool(_AWS_HOST.fullmatch(endpoint.hostname or "")) and "." not in bucket
    host = f"{bucket}.{endpoint.netloc}" if hosted else endpoint.netloc
    encryption: dict[str, Any] = {}
    if kms_key:
        encryption = {
            "aws_server_side_encryption": "aws:kms",
            "aws_sse_kms_key_id": kms_key,
            "aws_sse_bucket_key_enabled": True,
        }
    return Transfer(
        bucket,
        region=region,
        endpoint=f"{endpoint.scheme}://{host}{endpoint.path}",
        virtual_hosted_style_request=hosted,
        client_options={
            "allow_http": endpoint.scheme == "http",
            "connect_timeout": "5s",
            "read_timeout": f"{read_timeout}s",
            "timeout": "600s",
        },
        retry_config={"max_retries": max_retries, "retry_timeout": timedelta(minutes=3)},
        credential_provider=Credentials(session),
        **encryption,
    )
