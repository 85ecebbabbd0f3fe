"""What a process has needed."""

import resource
import sys
from pathlib import Path


def peak_mib() -> float:
    """Most memory that lay in this process at any time, in MiB.

    On Linux not ``ru_maxrss``: there a process begins with that of the one that started it.
    """
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
