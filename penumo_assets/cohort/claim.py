"""Who prepares a cohort: one run at a time, whoever launched it. The others wait, and then find what it left.

A claim saves work; it keeps nothing safe. Publishing is what must not go wrong, and does without it (`publish`). So a
claim may be lost: that of a process of this machine that has ended is taken over at once, and any other that nobody
has renewed for `LEASE_SECONDS`.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import psutil

from penumo_assets.resources.storage.object_store import ObjectChanged, ObjectMissing, ObjectStore, StorageError

LEASE_SECONDS = 60.0
LOOK_SECONDS = 0.5

_held: set[str] = set()  # the claims of this process


def claim_key(cohort: str) -> str:
    return f"jobs/claims/{cohort}.json"


@contextmanager
def claimed(store: ObjectStore, cohort: str, log: Callable[[str], object]) -> Iterator[None]:
    """Hold the cohort's claim; where another run has it, wait until that has ended, and say so once.

    Raises
    ------
    StorageError
        If the store does not answer.
    """
    owner = uuid.uuid4().hex
    _held.add(owner)
    ended = Event()
    beat = Thread(target=_renew, args=(store, cohort, owner, ended), daemon=True)
    try:
        _acquire(store, cohort, owner, log)
        beat.start()
        try:
            yield
        except BaseException:
            _let_go(beat, ended)
            with suppress(StorageError):
                _release(store, cohort, owner)
            raise
        _let_go(beat, ended)
        _release(store, cohort, owner)
    finally:
        _held.discard(owner)


def _acquire(store: ObjectStore, cohort: str, owner: str, log: Callable[[str], object]) -> None:
    seen, since, told = None, time.monotonic(), False
    while True:
        held, version = _read(store, cohort)
        if version != seen:
            seen, since = version, time.monotonic()
        if version is None or _has_ended(held) or time.monotonic() - since > LEASE_SECONDS:
            with suppress(ObjectChanged):  # another run was quicker
                store.swap(claim_key(cohort), _claim(owner), version)
                return
        elif not told:
            log(f"another run prepares cohort {cohort!r}: waiting until it has ended")
            told = True
        time.sleep(LOOK_SECONDS)


def _renew(store: ObjectStore, cohort: str, owner: str, ended: Event) -> None:
    while not ended.wait(LEASE_SECONDS / 4):
        with suppress(StorageError):
            held, version = _read(store, cohort)
            if held.get("owner") == owner:
                store.swap(claim_key(cohort), _claim(owner), version)


def _let_go(beat: Thread, ended: Event) -> None:
    ended.set()
    beat.join()


def _release(store: ObjectStore, cohort: str, owner: str) -> None:
    if _read(store, cohort)[0].get("owner") == owner:
        store.delete([claim_key(cohort)])


def _claim(owner: str) -> bytes:
    """Who claims, as others may judge it; ``beat`` differs each time, so that a renewed claim is another version."""
    process = psutil.Process()
    found = {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}
    return json.dumps({"owner": owner, **found, "beat": uuid.uuid4().hex}).encode()


def _read(store: ObjectStore, cohort: str) -> tuple[dict[str, object], str | None]:
    """The claim, and its version; empty and None where there is none."""
    try:
        data, version = store.read_version(claim_key(cohort))
    except ObjectMissing:
        return {}, None
    try:
        found = json.loads(data)
    except ValueError:
        found = {}
    return (found if isinstance(found, dict) else {}), version


def _has_ended(held: dict[str, object]) -> bool:
    """Whether the claim is certainly of a process that lives no more."""
    if held.get("host") != socket.gethostname():
        return False
    if held.get("pid") == os.getpid():
        return held.get("owner") not in _held
    try:
        process = psutil.Process(int(str(held.get("pid"))))
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() != held.get("started")
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, ValueError):
        return False
