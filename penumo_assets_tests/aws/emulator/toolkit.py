"""What AWS's images run in a training job without an entry point of its own: the training toolkit's script mode.

The part of https://github.com/aws/sagemaker-training-toolkit (environment.py, params.py, files.py, mapping.py,
trainer.py) that a user script depends on, retold: hyperparameters are decoded from JSON where they are JSON;
``sagemaker_program`` and the like are kept back; the submit directory is copied to /opt/ml/code unless something is
there already; the script gets the others as sorted ``--name value`` arguments and as SM_ variables; it is not told
when the container is stopped; and output/failure is written only where the script has left none.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_RESERVED = ("_tuning_objective_metric", "default_user_module_name")


def main() -> None:
    opt_ml = Path(os.environ.get("PENUMO_OPT_ML", "/opt/ml"))
    config, failure = opt_ml / "input" / "config", opt_ml / "output" / "failure"
    try:
        values = {
            name: decoded(text) for name, text in json.loads((config / "hyperparameters.json").read_text()).items()
        }
        install(opt_ml, str(values["sagemaker_submit_directory"]))
        given = {
            name: value for name, value in values.items() if not name.startswith("sagemaker_") and name not in _RESERVED
        }
        arguments = [text for name in sorted(given) for text in (f"--{name}", str(given[name]))]
        command = [sys.executable, str(values["sagemaker_program"]), *arguments]
        environment = dict(os.environ) | variables(opt_ml, config, given)
        code = subprocess.run(command, cwd=opt_ml / "code", env=environment, check=False).returncode
        reason = f"ExecuteUserScriptError: ExitCode {code} Command {' '.join(command)}"
    except Exception as error:
        code, reason = 1, f"framework error: {type(error).__name__}: {error}"
    if code and not failure.exists():
        failure.write_text(reason)
    sys.exit(1 if code < 0 else code)


def decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def install(opt_ml: Path, submitted: str) -> None:
    """Only folders of this container: the toolkit also takes archives from S3, which the runner has no use for."""
    source, target = opt_ml / Path(submitted).relative_to("/opt/ml"), opt_ml / "code"
    target.mkdir(exist_ok=True)
    if not any(target.iterdir()):
        shutil.copytree(source, target, dirs_exist_ok=True)


def variables(opt_ml: Path, config: Path, given: dict[str, Any]) -> dict[str, str]:
    cluster = json.loads((config / "resourceconfig.json").read_text())
    channels = sorted(path.name for path in (opt_ml / "input" / "data").iterdir() if path.is_dir())
    values: dict[str, Any] = {
        "hosts": cluster["hosts"],
        "current_host": cluster["current_host"],
        "hps": given,
        "channels": channels,
        "num_cpus": os.cpu_count(),
        "num_gpus": 0,
        "model_dir": str(opt_ml / "model"),
        "output_data_dir": str(opt_ml / "output" / "data"),
    }
    values |= {f"channel_{name}": str(opt_ml / "input" / "data" / name) for name in channels}
    values |= {f"hp_{name}": value for name, value in given.items()}
    return {
        f"SM_{name.upper()}": value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for name, value in values.items()
    }


if __name__ == "__main__":
    main()
