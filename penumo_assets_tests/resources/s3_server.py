"""An S3 on loopback that misbehaves when told to: moto's server behind a proxy that injects faults."""

import hashlib
import http.client
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

STALL_SECONDS = 2.0
_ERRORS = {
    "SlowDown": 503,
    "InternalError": 500,
    "AccessDenied": 403,
    "SignatureDoesNotMatch": 403,
    "PermanentRedirect": 301,
    "InvalidRequest": 400,
}


@dataclass
class Fault:
    """What happens to the next ``times`` requests of ``method`` ("*": of any), once ``after`` have passed.

    ``kind`` is an S3 error code, ``reset``, ``truncate`` (half a body), ``lost`` (carried out, but
    the connection breaks before the answer), ``flip`` (one changed bit in the bytes of an
    object), ``slow`` (a body in small pieces) or ``stall`` (no answer for ``STALL_SECONDS``).
    """

    method: str
    kind: str
    times: int
    after: int = 0


@dataclass
class S3Server:
    """The running server: its address, the requests it has seen, and the faults to come.

    ``behind`` is the address of what answers behind the proxy: there nothing is seen and nothing fails.
    """

    endpoint: str = ""
    behind: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def start_over(self, bucket: str, region: str) -> None:
        """One empty bucket, no faults, nothing seen."""
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        backend.reset()
        backend.create_bucket(bucket, region)
        self.faults.clear()
        self.seen.clear()

    def put(self, bucket: str, *keys: str) -> None:
        """Empty objects, as many as one likes: by no request, which would take moto 50 ms each."""
        for key in keys:
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, b"")

    def fail(self, method: str, kind: str, times: int = 1, after: int = 0) -> None:
        self.faults.append(Fault(method, kind, times, after))

    def next_fault(self, method: str, path: str) -> str | None:
        with self.lock:
            self.seen.append((method, path))
            for fault in self.faults:
                if fault.method in (method, "*") and fault.times > 0:
                    if fault.after > 0:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault.kind
            return None


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """moto and the proxy on free ports of the loopback address."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    server = S3Server(behind=f"http://{host}:{port}")
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server, (host, port)))
    proxy.daemon_threads = True
    Thread(target=proxy.serve_forever, daemon=True).start()
    server.endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
    try:
        yield server
    finally:
        proxy.shutdown()
        proxy.server_close()
        moto.stop()


def lead_to(server: S3Server, monkeypatch: pytest.MonkeyPatch, bucket: str, region: str) -> None:
    """Give the server an empty bucket, and the environment nothing of AWS but what leads to it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server.start_over(bucket, region)


def _handler(server: S3Server, target: tuple[str, int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = server.next_fault(self.command, self.path)
            if fault == "flip" and self.command == "PUT":
                body = _flipped(body)
            if fault == "stall":
                time.sleep(STALL_SECONDS)
                self.close_connection = True
            elif self._changed_on_its_way(body):
                self._answer(400, {}, b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>")
            elif fault == "reset":
                self._break()
            elif fault in _ERRORS:
                text = f"<Error><Code>{fault}</Code><Message>scripted</Message></Error>"
                self._answer(_ERRORS[fault], {"Content-Type": "application/xml"}, text.encode())
            else:
                connection = http.client.HTTPConnection(*target)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                if fault == "lost":
                    answer.read()
                    self._break()
                    return
                headers = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN_HEADERS}
                self._answer(answer.status, headers, answer.read(), answer.getheader("Content-Length"), fault)
                connection.close()

        def _break(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def _changed_on_its_way(self, body: bytes) -> bool:
            """What S3 checks and moto does not: the signed digest of the body."""
            signed = self.headers.get("x-amz-content-sha256", "")
            return len(signed) == 64 and signed != hashlib.sha256(body).hexdigest()

        def _answer(
            self, status: int, headers: dict[str, str], body: bytes, length: str | None = None, fault: str | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            if fault == "truncate":
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif fault == "slow":
                for start in range(0, len(body), len(body) // 5 + 1):
                    self.wfile.write(body[start : start + len(body) // 5 + 1])
                    self.wfile.flush()
                    time.sleep(0.05)
            elif fault == "flip" and self.command == "GET" and "list-type" not in self.path:
                self.wfile.write(_flipped(body))
            elif self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the tests' output quiet."""

    handlers: dict[str, Callable[..., None]] = {
        f"do_{method}": Handler._pass_on for method in ("GET", "PUT", "POST", "HEAD", "DELETE")
    }
    return type("Handler", (Handler,), handlers)


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


_OWN_HEADERS = {"content-length", "connection", "transfer-encoding", "date", "server"}
