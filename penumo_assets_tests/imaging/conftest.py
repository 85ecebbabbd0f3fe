from collections.abc import Callable
from pathlib import Path

import pytest

from penumo_assets_tests.memory import peak_mib

_CLEAR = Path("/proc/self/clear_refs")


@pytest.fixture
def peak_memory() -> Callable[[], float]:
    """How many MiB the process's memory has risen at most since the test began (Linux)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        pytest.skip("the peak of memory cannot be reset on this system")
    before = peak_mib()
    return lambda: peak_mib() - before
