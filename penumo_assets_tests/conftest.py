"""What holds for every test."""

import os

# Before torch is imported: threads that wait must not spin, or another busy process slows every test tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Any]:
    """AWS on loopback. Per module: moto forgets everything whenever another test opens ``mock_aws``."""
    from penumo_assets_tests.aws.emulator import Emulator  # moto takes a second to import

    running = Emulator().start()
    yield running
    running.stop()
