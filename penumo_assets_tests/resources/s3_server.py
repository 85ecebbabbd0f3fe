"""An S3 on loopback that misbehaves when told to: moto's server behind a proxy that injects faults."""

import http.client
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

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
    """What happens to the next ``times`` requests of ``method``: an S3 error code, ``reset``, ``truncate`` or
    ``lost``: the request is carried out, and the connection breaks before the answer."""

    method: str
    kind: str
    times: int


@dataclass
class S3Server:
    """The running server: its address, the requests it has seen, and the faults to come."""

    endpoint: str = ""
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

    def fail(self, method: str, kind: str, times: int = 1) -> None:
        self.faults.append(Fault(method, kind, times))

    def next_fault(self, method: str, path: str) -> str | None:
        with self.lock:
            self.seen.append((method, path))
            for fault in self.faults:
                if fault.method == method and fault.times > 0:
                    fault.times -= 1
                    return fault.kind
            return None


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """moto and the proxy on free ports of the loopback address."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    server = S3Server()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server, moto.get_host_and_port()))
    proxy.daemon_threads = True
    Thread(target=proxy.serve_forever, daemon=True).start()
    server.endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
    try:
        yield server
    finally:
        proxy.shutdown()
        proxy.server_close()
        moto.stop()


def _handler(server: S3Server, target: tuple[str, int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = server.next_fault(self.command, self.path)
            if fault == "reset":
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
            elif self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the tests' output quiet."""

    handlers: dict[str, Callable[..., None]] = {
        f"do_{method}": Handler._pass_on for method in ("GET", "PUT", "POST", "HEAD", "DELETE")
    }
    return type("Handler", (Handler,), handlers)


_OWN_HEADERS = {"content-length", "connection", "transfer-encoding", "date", "server"}
