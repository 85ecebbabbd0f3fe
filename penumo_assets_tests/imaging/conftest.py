from collections.abc import Callable
from pathlib import Path

import pytest

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@pytest.fixture
def peak_memory() -> Callable[[], float]:
    """How many MiB the process's memory has risen at most since the test began (Linux)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        pytest.skip("the peak of memory cannot be reset on this system")
    before = _peak_mib()
    return lambda: _peak_mib() - before


def _peak_mib() -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
