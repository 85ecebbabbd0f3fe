"""A PostgreSQL server of its own on loopback, from the binaries of the system."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDERS = ["/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt", "/usr/local/opt"]


def binaries() -> Path | None:
    """The folder with initdb and postgres, newest version first; None where there is none."""
    found = sorted((path.parent for folder in _FOLDERS for path in Path(folder).glob("*/bin/initdb")), reverse=True)
    on_path = shutil.which("initdb")
    found += [Path(on_path).resolve().parent] if on_path else []
    return next((folder for folder in found if (folder / "postgres").exists()), None)


@contextmanager
def running_postgres(folder_of_binaries: Path) -> Iterator[str]:
    """A server with an empty data folder on a free port; yields the URL of its database."""
    # PostgreSQL refuses to run as root: then it runs as nobody, who must own its folder.
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if user:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    initialise = ["initdb", "--pgdata", data, "--username", "dagster", "--auth", "trust", "--no-sync"]
    serve = ["postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"]
    server = None
    try:
        subprocess.run(
            [folder_of_binaries / initialise[0], *initialise[1:]],
            user=user,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        with (folder / "log").open("wb") as log:
            command = [folder_of_binaries / serve[0], *serve[1:], "-c", "fsync=off"]
            server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
        _wait_until_ready(folder_of_binaries, port, folder / "log")
        yield f"postgresql+psycopg2://dagster@127.0.0.1:{port}/postgres"
    finally:
        if server:
            server.terminate()
            server.wait(timeout=30)
        shutil.rmtree(folder)


def _wait_until_ready(folder_of_binaries: Path, port: int, log: Path) -> None:
    command = [folder_of_binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
    deadline = time.monotonic() + 30
    while subprocess.run(command, capture_output=True).returncode != 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
        time.sleep(0.1)
