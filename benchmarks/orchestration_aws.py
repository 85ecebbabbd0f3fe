"""A bucket of any size and a queue on loopback, made up as they are asked for: what the landing sensors need of AWS.

S3: ListObjectsV2 over ``landing/cohort-0000/images/0000.dcm`` …, 1,000 keys a page as the service has, and a time
before each answer. PUT and DELETE change single objects; none can be read. SQS: ReceiveMessage, DeleteMessageBatch,
GetQueueAttributes.
"""

import hashlib
import itertools
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlparse

PAGE = 1000
BUCKET, QUEUE = "films", "landing"


class Aws:
    """What the two services hold."""

    def __init__(self, cohorts: int, objects: int, latency: float) -> None:
        self.cohorts, self.objects, self.latency = cohorts, objects, latency
        self.changed: dict[str, dict[str, str | None]] = {}  # cohort → key → etag, or None where it was deleted
        self.messages: deque[dict[str, str]] = deque()
        self.taken: dict[str, dict[str, str]] = {}
        self.lock = threading.Lock()

    def cohort(self, number: int) -> list[tuple[str, str]]:
        """Keys and entity tags of one cohort, in order."""
        name = f"cohort-{number:04d}"
        entries = {f"landing/{name}/images/{item:04d}.dcm": f"{number:016x}{item:016x}" for item in range(self.objects)}
        entries |= self.changed.get(name, {})
        return sorted((key, etag) for key, etag in entries.items() if etag is not None)

    def after(self, key: str, prefix: str) -> Iterator[tuple[str, str]]:
        start = max(key, prefix)
        first = int(start[len("landing/cohort-") :][:4] or 0) if start.startswith("landing/cohort-") else 0
        entries = itertools.chain.from_iterable(self.cohort(number) for number in range(first, self.cohorts))
        behind = itertools.dropwhile(lambda entry: entry[0] <= key or entry[0] < prefix, entries)
        return itertools.takewhile(lambda entry: entry[0].startswith(prefix), behind)

    def page(self, query: dict[str, list[str]]) -> bytes:
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        found = list(itertools.islice(self.after(after, query["prefix"][0]), PAGE + 1))
        shown = found[:PAGE]
        contents = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag><Size>8388608</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key, etag in shown
        )
        more = f"<NextContinuationToken>{shown[-1][0]}</NextContinuationToken>" if len(found) > PAGE else ""
        head = f"<Name>{BUCKET}</Name><KeyCount>{len(shown)}</KeyCount><EncodingType>url</EncodingType>"
        cut = f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
        body = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{head}{cut}{more}{contents}'
        return f'<?xml version="1.0"?>{body}</ListBucketResult>'.encode()

    def change(self, key: str, etag: str | None) -> None:
        self.changed.setdefault(key.split("/")[1], {})[key] = etag

    def queue(self, operation: str, values: dict[str, Any]) -> dict[str, Any]:
        if operation == "SendMessageBatch":
            with self.lock:
                for item in values["Entries"]:
                    body = item["MessageBody"]
                    digest = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
                    self.messages.append({"MessageId": item["Id"], "Body": body, "MD5OfBody": digest})
            return {"Successful": [], "Failed": []}
        if operation == "ReceiveMessage":
            with self.lock:
                found = [self.messages.popleft() for _ in range(min(10, len(self.messages)))]
                answers = [message | {"ReceiptHandle": f"r-{message['MessageId']}"} for message in found]
                self.taken |= {answer["ReceiptHandle"]: answer for answer in answers}
            return {"Messages": answers} if answers else {}
        if operation == "DeleteMessageBatch":
            with self.lock:
                for entry in values["Entries"]:
                    self.taken.pop(entry["ReceiptHandle"], None)
            return {"Successful": [{"Id": entry["Id"]} for entry in values["Entries"]], "Failed": []}
        left = {
            "ApproximateNumberOfMessages": len(self.messages),
            "ApproximateNumberOfMessagesNotVisible": len(self.taken),
        }
        return {"Attributes": {name: str(value) for name, value in left.items()}}


def _handler(aws: Aws) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            time.sleep(aws.latency)
            query = parse_qs(urlparse(self.path).query)
            if "prefix" in query:
                self._answer(aws.page(query), "application/xml")
            else:  # no cohort has been prepared yet, so none has a manifest
                self._answer(b"<Error><Code>NoSuchKey</Code></Error>", "application/xml", status=404)

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            aws.change(self._key(), hashlib.md5(data, usedforsecurity=False).hexdigest())
            self._answer(b"", "application/xml")

        def do_DELETE(self) -> None:
            aws.change(self._key(), None)
            self._answer(b"", "application/xml")

        def do_POST(self) -> None:
            values = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            operation = self.headers["X-Amz-Target"].split(".")[-1]
            if operation != "SendMessageBatch":
                time.sleep(aws.latency)
            self._answer(json.dumps(aws.queue(operation, values)).encode(), "application/x-amz-json-1.0")

        def _key(self) -> str:
            return unquote(urlparse(self.path).path).removeprefix(f"/{BUCKET}/")

        def _answer(self, body: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A line per request would cost as much as the request."""

    return Handler


def main() -> None:
    cohorts, objects, latency = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(Aws(cohorts, objects, latency)))
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
