"""AWS credentials for obstore, found by boto3."""

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.exceptions import NoCredentialsError


class Credentials:
    """boto3's credentials (environment, profile, web identity, role) for obstore, which asks again as they age."""

    def __init__(self, session: boto3.Session) -> None:
        self._session = session

    def __call__(self) -> Any:
        found = self._session.get_credentials()
        if found is None:
            raise NoCredentialsError()
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            # boto3 renews what has less than ten minutes to live; obstore asks five minutes before this.
            "expires_at": datetime.now(UTC) + timedelta(minutes=10),
        }
