"""Reports in a browser: a route from an asset's page to its report.html, wherever the root is.

Whoever may open the address may read every report, and nothing else: only `reports/*/*/report.html` is answered. It
listens on this machine unless told otherwise, reads a bucket with the rights of who started it, and hands out no signed
address. The reports' own pages load nothing from anywhere.
"""

import os
import re
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

from penumo_assets.resources.storage.object_store import ObjectStore, StorageError

_REPORT = re.compile(r"/(reports/[A-Za-z0-9_-][A-Za-z0-9._-]*/[A-Za-z0-9_-][A-Za-z0-9._-]*/report\.html)")
_HOSTS = {"127.0.0.1", "localhost", "[::1]"}
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def report_server(store: ObjectStore, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server of the reports in ``store``, bound and not yet serving."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            named = re.sub(r":\d+$", "", self.headers.get("Host", ""))
            found = _REPORT.fullmatch(unquote(urlparse(self.path).path))
            if host == "127.0.0.1" and named not in _HOSTS:  # another site's name that leads here
                self.send_error(HTTPStatus.FORBIDDEN)
            elif found is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self._answer(found[1])

        def _answer(self, key: str) -> None:
            try:
                page = store.read(key)
            except StorageError:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            self.send_response(HTTPStatus.OK)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: the terminal is Dagster's."""

    return ThreadingHTTPServer((host, port), Handler)


def serve_reports(store: ObjectStore, port: int, host: str = "127.0.0.1", *, with_parent: bool = False) -> None:
    """Serve until interrupted; ``with_parent``: or until the process that started this one has ended."""
    with report_server(store, port, host) as server:
        if with_parent:
            threading.Thread(target=_end_with_parent, args=(server, os.getppid()), daemon=True).start()
        server.serve_forever()


def _end_with_parent(server: ThreadingHTTPServer, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    server.shutdown()
