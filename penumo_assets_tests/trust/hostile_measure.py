"""Decode files in a process of its own and report, as JSON, what each one cost and became.

python -m penumo_assets_tests.trust.hostile_measure FOLDER MEGAPIXELS
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import decode_image
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets_tests.memory import peak_mib


def measure(folder: Path, files: dict[str, bytes], megapixels: int = 64) -> dict[str, dict[str, Any]]:
    """``code`` (``decoded`` or why not), ``seconds`` of processor time and ``mebibytes`` of new peak, by name.

    The peak is the process's, so a file shows what it needs beyond all before it; small ones go first.
    """
    for number, data in enumerate(files.values()):
        (folder / f"{number:03}").write_bytes(data)
    command = [sys.executable, "-m", "penumo_assets_tests.trust.hostile_measure", str(folder), str(megapixels)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"a file took the decoder's process with it:\n{done.stderr[-2000:]}"
    return dict(zip(files, json.loads(done.stdout.splitlines()[-1]), strict=True))


def _one(data: bytes, config: DecodeConfig) -> dict[str, Any]:
    before, started = peak_mib(), time.process_time()
    try:
        decode_image(data, config)
        code = "decoded"
    except ImageRejected as rejection:
        code = rejection.code
    return {"code": code, "seconds": time.process_time() - started, "mebibytes": peak_mib() - before}


if __name__ == "__main__":
    settings = DecodeConfig(max_megapixels=float(sys.argv[2]))
    print(json.dumps([_one(path.read_bytes(), settings) for path in sorted(Path(sys.argv[1]).iterdir())]))
