"""Which settings a command sees: the environment, completed by the `.env` file that Dagster's commands read too.

`dg` and `dagster` read `.env` of the working directory. `penumo` reads the same file, and that of the checkout where
the working directory has none. `make install` writes the file; its lines give way to what the shell has exported.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

from dotenv import dotenv_values

from penumo_assets.jobs.contract import write_atomic
from penumo_assets.jobs.prepare.work import DEMO_KEY, KEY_VARIABLE
from penumo_assets.resources.profile import home, local_folder, storage_root

NAME = ".env"

# Else a user's alerts would tell of the demo's failures, and its models be offered where a user's are.
_NOT_THE_DEMOS = (
    "PENUMO_EVENTS_QUEUE_URL",
    "PENUMO_INFERENCE_IMAGE",
    "PENUMO_ALERT_WEBHOOK_URL",
    "PENUMO_ALERT_SNS_TOPIC_ARN",
    "PENUMO_DAGSTER_UI",
    "PENUMO_MLFLOW_UI",
    "PENUMO_REPORTS_URL",
)


def env_file() -> Path:
    """The `.env` that counts: the working directory's, or else the checkout's, whether or not it exists."""
    here = Path.cwd() / NAME
    return here if here.is_file() else home() / NAME


def load_env_file() -> None:
    """Read `.env` into the environment, as Dagster does: a line of the file replaces a variable of the shell."""
    os.environ.update({name: value for name, value in dotenv_values(env_file()).items() if value is not None})


def complete_env_file() -> Path:
    """Write the lines that `.env` of the checkout lacks; what stands there stays. Returns the file."""
    file = home() / NAME
    text = file.read_text(encoding="utf-8") if file.exists() else _INTRODUCTION
    known = dotenv_values(file, interpolate=False)
    places = {"PENUMO_ROOT": home() / ".penumo", "DAGSTER_HOME": home() / ".penumo" / "dagster"}
    missing = [f'{name}="${{{name}:-{place}}}"\n' for name, place in places.items() if name not in known]
    if missing:
        start = text if text.endswith("\n") else text + "\n"
        write_atomic(file, (start + "".join(missing)).encode())
    return file


_INTRODUCTION = f"""\
# Read by penumo, dg and dagster when they run in this folder. Written once by `make install`; edit it as you like.
# ${{NAME:-value}} takes what the shell has exported as NAME, and else the value.
# Needed for DICOM files, a secret of 16 characters or more that you keep: {KEY_VARIABLE}=...
"""


def use_demo() -> Path:
    """Point the environment to the demo's root, Dagster instance, MLflow names and key; the demo's own folder.

    All of it lies below the user's root in ``demo/``, and nothing of the user's is read or written.
    """
    root = storage_root()
    folder = local_folder() / ("demo-on-s3" if root.startswith("s3://") else "demo")
    for name in _NOT_THE_DEMOS:
        os.environ.pop(name, None)
    if os.environ.get("PENUMO_PROFILE", "embedded") == "embedded":
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ |= {
        "PENUMO_ROOT": f"{root.rstrip('/')}/demo",
        "DAGSTER_HOME": str(folder / "dagster"),
        KEY_VARIABLE: DEMO_KEY,
        "MLFLOW_EXPERIMENT_NAME": "pneumonia-demo",
        "PENUMO_REGISTERED_MODEL": "pneumonia-demo",
    }
    return folder


def settings() -> dict[str, str]:
    """What is in force, for a person: no secret among it."""
    return {
        "PENUMO_PROFILE": os.environ.get("PENUMO_PROFILE") or "embedded",
        "PENUMO_ROOT": storage_root(),
        "DAGSTER_HOME": os.environ.get("DAGSTER_HOME") or str(local_folder() / "dagster"),
        KEY_VARIABLE: "set" if os.environ.get(KEY_VARIABLE) else "not set: DICOM files are rejected without it",
        "read from": str(env_file()) if env_file().is_file() else "the environment alone",
    }


def shown(path: Path | str) -> str:
    """A path as it is typed in the working directory: relative where that is shorter, quoted where a shell needs it."""
    path = Path(path)
    return shlex.quote(str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path))


def program(name: str) -> str:
    """How to call a program of this environment: by its name where the shell would find it, or else by its path."""
    path = Path(sys.executable).parent / name
    found = shutil.which(name)
    return name if found and Path(found).resolve() == path.resolve() else shown(path)
