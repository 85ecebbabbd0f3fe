"""What answers behind an endpoint: AWS's own `serve` with TorchServe, or our `serve` where those are not here."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil

from penumo_assets.jobs.infer import handler, serve
from penumo_assets_tests.aws import programs

START_SECONDS = 180
# The toolkit writes TorchServe's settings into /etc, which this machine keeps to itself.
_LAUNCHER = """
import sys
from sagemaker_pytorch_serving_container import serving, torchserve
torchserve.TS_CONFIG_FILE = sys.argv[1]
serving.main()
"""


class ModelServer:
    """A server of one model on loopback; ``stop`` ends it."""

    def __init__(self, port: int, stop: Callable[[], None]) -> None:
        self.port, self.stop = port, stop

    def post(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        return self.send("POST", "/invocations", body, content_type)

    def send(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def our_serve(folder: Path, environment: Mapping[str, str]) -> ModelServer:
    """Our `serve` on the model in ``folder``/model, in a thread of this process."""
    server = serve.make_server(handler.model_fn(str(folder / "model")), port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return ModelServer(server.server_port, stop)


def torchserve(folder: Path, environment: Mapping[str, str]) -> ModelServer:
    """AWS's `serve` on the model in ``folder``/model, with the container's variables.

    Raises
    ------
    RuntimeError
        With the end of its log, if it does not answer.
    """
    aws = programs.environment()
    if aws is None:
        raise RuntimeError(f"AWS's `serve` is not here: name a virtual environment by {programs.VARIABLE}")
    # The packages are here already; on AWS the toolkit installs this list at every start.
    (folder / "model" / "code" / "requirements.txt").unlink(missing_ok=True)
    inference, management, metrics = _free_ports(3)
    variables = dict(environment) | {
        "PATH": f"{aws / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": programs.python_path(aws),
        "SAGEMAKER_BASE_DIR": str(folder),
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
        "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{inference}",
        "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{management}",
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{metrics}",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "log.txt").open("wb") as log:
        command: list[Any] = [aws / "bin" / "python", "-c", _LAUNCHER, folder / "torchserve.properties"]
        process = subprocess.Popen(
            command, env=variables, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    server = ModelServer(inference, lambda: _end(process))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            if server.send("GET", "/ping")[0] == 200:
                return server
        time.sleep(0.5)
    server.stop()
    raise RuntimeError((folder / "log.txt").read_text(errors="replace")[-3000:])


def _end(process: subprocess.Popen) -> None:
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
