"""What holds for every test."""

import os
import signal

# Before torch is imported: threads that wait must not spin, or another busy process slows every test tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if not os.environ.get("PENUMO_TEST_GPU"):  # what is held to the bit is held on a CPU, whatever else is here
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker per core: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long go first, so that no worker is left alone with one at the end.

    Those are the slow ones; then those about trust, which take cohorts through hostile surroundings.
    """
    places = dict.fromkeys((item.path for item in items), 2)
    for place, marker in ((1, "trust"), (0, "slow")):
        places |= {item.path: place for item in items if item.get_closest_marker(marker)}
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(scope="module", autouse=True)
def surroundings() -> Iterator[None]:
    """What a file of tests, or torchrun or a command within it, sets for its process ends with the file."""
    variables, handlers = dict(os.environ), {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    yield
    os.environ.clear()
    os.environ.update(variables)
    for name, handler in handlers.items():
        signal.signal(name, handler)


@pytest.fixture(scope="module")
def emulator() -> Iterator[Any]:
    """AWS on loopback. Per module: moto forgets everything whenever another test opens ``mock_aws``."""
    from penumo_assets_tests.aws.emulator import Emulator  # moto takes a second to import

    running = Emulator().start()
    yield running
    running.stop()
