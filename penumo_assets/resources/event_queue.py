"""The SQS queue that a bucket's event notifications go to.

boto3 is imported where a queue is opened: an installation without one does without.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

# A message is taken by one tick and deleted by the next one; until then nobody else may get it.
VISIBILITY_SECONDS = 300
LONG_POLL_SECONDS = 1  # asks every server of the queue, where a short poll may miss messages
_BATCH = 10  # the API's limit
_WORKERS = 8


class QueueError(RuntimeError):
    """The queue cannot be used; the message names the variable to look at."""


@dataclass(frozen=True)
class Message:
    """A message and the receipt that deletes it."""

    message_id: str
    receipt: str
    body: str


class EventQueue:
    """A queue by its URL. Region, credentials and endpoint come from the AWS environment.

    Raises
    ------
    QueueError
        If no region is known.
    """

    def __init__(self, url: str) -> None:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        retries: Any = {"mode": "standard", "max_attempts": 1}
        config = Config(retries=retries, connect_timeout=5, read_timeout=10, max_pool_connections=_WORKERS)
        try:
            self._client = boto3.client("sqs", config=config)
        except BotoCoreError as error:
            raise QueueError(f"SQS cannot be used ({type(error).__name__}); set AWS_DEFAULT_REGION") from error
        self._url = url

    def receive(self, limit: int, out_of_time: Callable[[], bool]) -> list[Message]:
        """Messages until the queue is empty, about ``limit`` have come, or ``out_of_time()``."""
        taken: list[Message] = []

        def drain(_: int) -> None:
            while len(taken) < limit and not out_of_time():
                answer = self._call(
                    self._client.receive_message,
                    MaxNumberOfMessages=_BATCH,
                    WaitTimeSeconds=LONG_POLL_SECONDS,
                    VisibilityTimeout=VISIBILITY_SECONDS,
                )
                found = answer.get("Messages", [])
                if not found:
                    return
                taken.extend(Message(item["MessageId"], item["ReceiptHandle"], item["Body"]) for item in found)

        with ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(drain, range(_WORKERS)))
        return taken

    def delete(self, receipts: Sequence[str]) -> int:
        """Delete messages; returns how many were not, which will be delivered again."""

        def delete_batch(batch: Sequence[str]) -> int:
            entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(batch)]
            return len(self._call(self._client.delete_message_batch, Entries=entries).get("Failed", []))

        with ThreadPoolExecutor(_WORKERS) as pool:
            return sum(pool.map(delete_batch, _batches(receipts)))

    def has_dead_letter_queue(self) -> bool:
        """Whether messages that are never deleted end up in a queue where somebody can look at them."""
        answer = self._call(self._client.get_queue_attributes, AttributeNames=["RedrivePolicy"])
        return bool(json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "{}")))

    def _call(self, operation: Callable[..., Any], **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return operation(QueueUrl=self._url, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            reason = f"SQS answered {code}; check PENUMO_EVENTS_QUEUE_URL and the permissions"
            raise QueueError(reason) from error
        except BotoCoreError as error:
            reason = f"SQS cannot be reached ({type(error).__name__}); check the network and AWS_ENDPOINT_URL"
            raise QueueError(reason) from error


def _batches(receipts: Sequence[str]) -> Iterable[Sequence[str]]:
    return (receipts[start : start + _BATCH] for start in range(0, len(receipts), _BATCH))
