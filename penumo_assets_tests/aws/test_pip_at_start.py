"""A job in an image that lacks packages installs them when it starts: real pip, from an index on loopback."""

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from penumo_assets.resources.compute.sagemaker import start

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "a-secret-key",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/a-secret",
    "MLFLOW_TRACKING_TOKEN": "a-secret-token",
    "SM_HP_X": "a-secret-hyperparameter",
}
# Run at every start of Python: what a process of pip is given.
SPY = (
    "import json, os, sys; 'pip' in sys.orig_argv and open({path!r}, 'a').write(json.dumps(dict(os.environ)) + '\\n')\n"
)
PROGRAM = "import importlib.metadata as m; print('has', m.version('films'), m.version('needed-by-films'))"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip alone, which tells what pip is given."""
    folder = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "spy.pth").write_text(SPY.format(path=str(folder / "seen.jsonl")))
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a simple index: `films` in two versions, what it needs, and a package as source alone."""
    folder = tmp_path_factory.mktemp("index")
    for name, version, needs in (
        ("films", "1.0", "needed-by-films"),
        ("films", "2.0", ""),
        ("needed_by_films", "3.0", ""),
    ):
        add_wheel(folder, name, version, needs)
    source = folder / "simple" / "from-source"
    source.mkdir()
    with tarfile.open(source / "from_source-1.0.tar.gz", "w:gz") as tar:
        script = f"open({str(folder / 'ran')!r}, 'w')\nfrom setuptools import setup\nsetup()"
        member = tarfile.TarInfo("from_source-1.0/setup.py")
        member.size = len(script)
        tar.addfile(member, io.BytesIO(script.encode()))
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple/"
    server.shutdown()
    server.server_close()
    assert not (folder / "ran").exists(), "nobody's build script runs"


def add_wheel(folder: Path, name: str, version: str, needs: str) -> None:
    """A wheel that holds nothing but what says what it is."""
    place = folder / "simple" / name.replace("_", "-")
    place.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    files = {"METADATA": about, "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n", "RECORD": ""}
    with zipfile.ZipFile(place / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(f"{info}/{file}", text)


def run_job(image: Path, index: str, opt_ml: Path, requirements: str, constraints: str) -> tuple[int, str]:
    """The exit code of start.py and its log, for a program whose list of packages is ``requirements``."""
    code = opt_ml / "processing" / "input" / "code"
    code.mkdir(parents=True)
    (opt_ml / "config").mkdir()
    (opt_ml / "config" / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))
    (code / "start.py").write_bytes(Path(start.__file__).read_bytes())
    files = {"__init__.py": "", "jobs/__init__.py": "", "jobs/prepare/__init__.py": ""} | {
        "jobs/prepare/__main__.py": PROGRAM,
        "jobs/prepare/requirements.txt": requirements,
        "constraints.txt": constraints,
    }
    with tarfile.open(code / start.BUNDLE_NAME, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{start.PACKAGE}/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    environment = {"PATH": os.environ["PATH"], "PENUMO_OPT_ML": str(opt_ml), "PIP_INDEX_URL": index} | SECRETS
    environment |= {"HOME": str(opt_ml), "PENUMO_NOTE": "a-secret-note"}
    answer = subprocess.run(
        [image / "bin" / "python", code / "start.py", "processing", "prepare"],
        env=environment,
        cwd=opt_ml,
        capture_output=True,
        text=True,
    )
    return answer.returncode, answer.stdout + answer.stderr


def test_what_is_lacking_is_installed_in_the_versions_of_the_bundle_and_pip_is_given_no_secret(
    image: Path, index: str, tmp_path: Path
) -> None:
    code, log = run_job(image, index, tmp_path, "# a list\nfilms>=1\n", "films==1.0\nneeded-by-films==3.0\n")
    assert (code, "has 1.0 3.0" in log) == (0, True), log
    seen = (image / "seen.jsonl").read_text()
    assert index in seen
    for name, value in {**SECRETS, "PENUMO_NOTE": "a-secret-note"}.items():
        assert name not in seen
        assert value not in seen


@pytest.mark.parametrize(
    ("wanted", "constraints", "said"),
    [
        ("from-source", "", "No matching distribution found for from-source"),
        ("nobody-has-this", "", "No matching distribution found for nobody-has-this"),
        ("films>=2", "films==1.0", "films"),
    ],
    ids=["source only", "unknown", "against the constraints"],
)
def test_what_pip_cannot_install_is_the_job_s_reason(
    image: Path, index: str, tmp_path: Path, wanted: str, constraints: str, said: str
) -> None:
    code, _ = run_job(image, index, tmp_path, f"{wanted}\n", constraints)
    assert code != 0
    reason = (tmp_path / "output" / "failure").read_text()
    assert reason.startswith("pip cannot install what the image lacks: ERROR")
    assert said in reason
    assert "PENUMO_PIP_INDEX_URL" in reason
    assert (tmp_path / "output" / "message").read_text() == reason[:1000]


def test_an_index_that_cannot_be_reached_is_the_job_s_reason(image: Path, tmp_path: Path) -> None:
    code, _ = run_job(image, "http://127.0.0.1:9/simple/", tmp_path, "nobody-has-this\n", "")
    assert code != 0
    assert "No matching distribution found for nobody-has-this" in (tmp_path / "output" / "failure").read_text()
