"""Tell somebody outside that a run failed: a webhook (Slack, Teams, Mattermost, PagerDuty …) or an SNS topic."""

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

_ATTEMPTS = 3
_WAIT_SECONDS = 2.0
_TIMEOUT_SECONDS = 10


class AlertError(RuntimeError):
    """The alert could not be delivered; the message names the variable to look at and never the address."""


def post_webhook(url: str, message: dict[str, Any]) -> None:
    """Send ``message`` as JSON, up to three times.

    Raises
    ------
    AlertError
        If the address is none, or nobody takes the message there.
    """
    if urlparse(url).scheme not in {"http", "https"} or not urlparse(url).hostname:
        raise AlertError("PENUMO_ALERT_WEBHOOK_URL is no http(s) address")
    headers = {"Content-Type": "application/json", "User-Agent": "penumo-assets"}
    request = urllib.request.Request(url, json.dumps(message).encode(), headers)

    def post() -> None:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
            pass

    _deliver("the webhook of PENUMO_ALERT_WEBHOOK_URL", post, OSError)


def publish_sns(topic_arn: str, subject: str, message: dict[str, Any]) -> None:
    """Publish ``message`` as JSON to an SNS topic, up to three times.

    Raises
    ------
    AlertError
        If SNS does not take it.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    def publish() -> None:
        config = Config(connect_timeout=5, read_timeout=_TIMEOUT_SECONDS, retries={"max_attempts": 0})
        client = boto3.client("sns", config=config)
        client.publish(TopicArn=topic_arn, Subject=subject[:100], Message=json.dumps(message))

    _deliver("the topic of PENUMO_ALERT_SNS_TOPIC_ARN", publish, BotoCoreError, ClientError)


def _deliver(where: str, send: Callable[[], None], *errors: type[Exception]) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            return send()
        except errors as error:
            # The error's text may hold the address, which is a secret; its kind and its status do not.
            kind = getattr(error, "code", None) or type(error).__name__
            if attempt == _ATTEMPTS - 1:
                raise AlertError(f"{where} did not take the alert ({kind})") from None
            time.sleep(_WAIT_SECONDS * 2**attempt)
