"""A classifier behind an endpoint on this machine: the two routes of SageMaker's inference container, to try them.

python -m penumo_assets.jobs.infer.serve --model FOLDER_OR_ARCHIVE --port 8080
curl --data-binary @film.dcm -H 'Content-Type: application/dicom' localhost:8080/invocations
"""

import argparse
import json
import logging
import re
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from penumo_assets.jobs.infer.handler import BadRequest, Endpoint, input_fn, model_fn, output_fn, predict_fn
from penumo_assets.models.archive import extract_model_archive

MAX_BODY_BYTES = 64 * 1024**2

logger = logging.getLogger(__name__)


def make_server(endpoint: Endpoint, port: int, host: str = "127.0.0.1") -> HTTPServer:
    """A server with SageMaker's two routes: GET /ping and POST /invocations. For trying, one request at a time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*((200, "{}") if self.path == "/ping" else (404, '{"error": "not found"}')))

        def do_POST(self) -> None:
            declared = self.headers.get("Content-Length", "")
            if self.path != "/invocations":
                self._send(404, '{"error": "not found"}')
                return
            if not re.fullmatch("[0-9]{1,12}", declared):
                self._send(411, '{"error": "the request does not say its length"}')
                return
            if int(declared) > MAX_BODY_BYTES:
                self._send(413, json.dumps({"error": f"the request has more than {MAX_BODY_BYTES // 2**20} MB"}))
                return
            try:
                image = input_fn(self.rfile.read(int(declared)), self.headers.get("Content-Type", ""))
                self._send(200, output_fn(predict_fn(image, endpoint))[0])
            except BadRequest as error:
                self._send(400, json.dumps({"error": str(error)}))
            except Exception:
                logger.exception("a request failed")
                self._send(500, '{"error": "internal error"}')

        def log_message(self, format: str, *args: Any) -> None:
            logger.debug(format, *args)

        def _send(self, status: int, text: str) -> None:
            data = text.encode("utf-8")
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return HTTPServer((host, port), Handler)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="model.tar.gz, or the folder it unpacks to")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        archive = arguments.model.is_file()
        endpoint = model_fn(str(extract_model_archive(arguments.model, Path(scratch)) if archive else arguments.model))
    with make_server(endpoint, arguments.port) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}/invocations", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
