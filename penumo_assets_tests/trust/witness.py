"""A reader that never stops: whatever it finds while others work, are killed and start again must be whole."""

import hashlib
import io
import json
import os
import signal
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.numpy import load

from penumo_assets.jobs.manifest import load_rows
from penumo_assets.jobs.shards import Split
from penumo_assets.metrics.report.content import read_report
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore
from penumo_assets_tests.trust.state import listed, registry

PAUSE_SECONDS = 0.04


class Witness:
    """Looks at everything once per `look`; ``faults`` says what it saw. An object it has checked is not read again."""

    def __init__(self, store: ObjectStore, database: Path) -> None:
        self.store, self.database = store, database
        self.faults: list[str] = []
        self.looks = 0
        self._known: set[tuple[str, str]] = set()
        self._had_champion = False

    def look(self) -> None:
        self.looks += 1
        tags = {info.key: info.etag for family in ("manifests", "models", "reports", "training_set", "predictions")
                for info in self.store.list_objects(family)}  # fmt: skip
        for key in tags:
            if key.startswith("manifests/") and key.endswith(".jsonl"):
                self._guard(key, self._manifest)
            elif key.endswith("/current.json"):
                self._guard(key, self._record)
        if "models/champion.json" in tags:
            self._guard("models/champion.json", self._champion)
        hidden = [key for key in listed(self.store) if any(part.startswith(".") for part in key.split("/"))]
        self.faults += [f"{key}: a file that is not finished is shown" for key in hidden]
        self._aliases()

    def _guard(self, key: str, check: Any) -> None:
        """If what a record names is missing, the record must have changed meanwhile: only then look again."""
        for _ in range(20):
            try:
                before = self.store.read(key)
            except ObjectMissing:
                return
            try:
                return check(key, before)
            except Exception as error:
                try:
                    unchanged = self.store.read(key) == before
                except ObjectMissing:
                    return
                if unchanged or not isinstance(error, ObjectMissing):
                    self.faults.append(f"{key}: {type(error).__name__}: {str(error)[:200]}")
                    return

    def _manifest(self, key: str, data: bytes) -> None:
        for row in load_rows(data.partition(b"\n")[2]):  # behind the head
            for output in row.stages.values():
                if (output.key, output.sha256) in self._known:
                    if not self.store.exists(output.key):
                        raise ObjectMissing(output.key)
                    continue
                if hashlib.sha256(self.store.read(output.key)).hexdigest() != output.sha256:
                    raise ValueError(f"{output.key} does not hold what the manifest recorded")
                self._known.add((output.key, output.sha256))

    def _record(self, key: str, data: bytes) -> None:
        record = json.loads(data)
        if (key, hashlib.sha256(data).hexdigest()) in self._known:
            return
        for name in record.get("names") or [record["name"]]:
            self._object(f"{record['prefix']}/{name}")
        if key.startswith("training_set/"):
            self._training_set(record)
        self._known.add((key, hashlib.sha256(data).hexdigest()))

    def _object(self, key: str) -> None:
        data = self.store.read(key)
        if key.endswith("report.json"):
            read_report(data)
        elif key.endswith(".tar.gz"):
            _open_archive(data)

    def _training_set(self, record: dict[str, Any]) -> None:
        assert isinstance(self.store, FileStore)
        folder = self.store.path(record["prefix"])
        digests = {Split(folder / name).dataset.digest for name in ("train", "validation", "test")}
        if digests != {record["digest"]}:
            raise ValueError(f"{record['prefix']} holds another training set than its record says")

    def _champion(self, key: str, data: bytes) -> None:
        record = json.loads(data)
        if (key, hashlib.sha256(data).hexdigest()) not in self._known:
            _open_archive(self.store.read(f"{record['serving']['prefix']}/{record['serving']['name']}"))
            self.store.read_json(f"models/versions/{record['version']}.json")
            self.store.read_json(f"{record['report']}/report.json")
            self._known.add((key, hashlib.sha256(data).hexdigest()))

    def _aliases(self) -> None:
        found = registry(self.database)
        champion = found.get("aliases", {}).get("champion")
        if champion is None and self._had_champion:
            self.faults.append("MLflow's alias champion points to nothing any more")
        elif champion is not None and champion not in found["versions"]:
            self.faults.append(f"MLflow's alias champion points to version {champion}, which does not exist")
        self._had_champion = self._had_champion or champion is not None


@contextmanager
def watching(store: ObjectStore, database: Path, notes: Path) -> Iterator[None]:
    """A witness in a process of its own for as long as the block lasts; `read_notes` gives what it saw."""
    notes.unlink(missing_ok=True)
    process = os.fork()
    if process == 0:
        _watch(Witness(store, database), notes)
    try:
        yield
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)


def read_notes(notes: Path) -> tuple[int, list[str]]:
    """How often the witness looked, and what it found, each once."""
    looks, faults = json.loads(notes.read_text())
    return looks, sorted(set(faults))


def _watch(witness: Witness, notes: Path) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    try:
        while not stopped:
            witness.look()
            time.sleep(PAUSE_SECONDS)
        witness.look()
    except BaseException as error:
        witness.faults.append(f"the witness itself failed: {type(error).__name__}: {error}")
    notes.write_text(json.dumps([witness.looks, witness.faults]))
    os._exit(0)


def _open_archive(data: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            bare = file.read() if file is not None else b""
            if member.name.endswith(".safetensors"):
                load(bare)
