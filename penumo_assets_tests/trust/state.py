"""What an installation has come to, so that two can be compared: contents by digest, without clocks and run ids."""

import hashlib
import io
import json
import re
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd

from penumo_assets.cohort.publish import read_manifest, read_settings
from penumo_assets.resources.storage.object_store import ObjectMissing, ObjectStore

_ATTEMPT = re.compile(r"-([0-9a-f]{12})-\d+")
# What two undisturbed runs do not agree on either.
_OF_THE_RUN = re.compile(r"created|mlflow_run_id|mlflow_model_uri|images_per_second|(stage_)?seconds(_\w+)?")
STAGES = ("raw", "masks", "preprocessed", "npz")


def content(store: ObjectStore, database: Path) -> dict[str, Any]:
    """Everything that the records name, by digest: equal for two installations that came to the same."""
    found: dict[str, Any] = {}
    for cohort in _cohorts(store):
        for row in read_manifest(store, cohort):
            outputs = {stage: _digest(store.read(output.key)) for stage, output in row.stages.items()}
            recorded = {stage: output.sha256 for stage, output in row.stages.items()}
            assert outputs == recorded, f"{cohort}: {row.source} does not hold what its manifest recorded"
            values = row.model_dump(mode="json")
            for output in values["stages"].values():
                del output["key"]
            found[f"manifest/{cohort}/{row.source}"] = values
        found[f"settings/{cohort}"] = read_settings(store, cohort)
        found[f"predictions/{cohort}"] = _versions(store, f"predictions/{cohort}")
    found["training_set"] = _versions(store, "training_set")
    for architecture in ("resnet34", "resnet50"):
        found[f"model/{architecture}"] = _versions(store, f"models/{architecture}")
        found[f"report/{architecture}"] = _versions(store, f"reports/{architecture}")
    champion = _json(store, "models/champion.json")
    if champion is not None:
        serving = champion["serving"]
        found["champion"] = [champion, _archive(store.read(f"{serving['prefix']}/{serving['name']}"))]
    found["registry"] = registry(database)
    return {name: _plain(value) for name, value in found.items()}


def named(store: ObjectStore) -> set[str]:
    """Every key that a record or a manifest leads to, and the records themselves."""
    keys = {info.key for info in store.list_objects("manifests")} | {info.key for info in store.list_objects("landing")}
    for cohort in _cohorts(store):
        keys |= {output.key for row in read_manifest(store, cohort) for output in row.stages.values()}
    for prefix in ("training_set", "models", "reports", "predictions"):
        for info in store.list_objects(prefix):
            if info.key.endswith("/current.json"):
                keys |= {info.key, *_keys_of(store.read_json(info.key))}
    champion = _json(store, "models/champion.json")
    if champion is not None:
        keys |= {"models/champion.json", f"models/versions/{champion['version']}.json"}
        keys.add(f"{champion['serving']['prefix']}/{champion['serving']['name']}")
    return keys


def listed(store: ObjectStore) -> set[str]:
    """Every object of the application that a listing shows."""
    families = ("landing", "manifests", *STAGES, "training_set", "models", "reports", "predictions", "jobs", "inputs")
    return {info.key for family in families for info in store.list_objects(family)}


def registry(database: Path) -> dict[str, Any]:
    """MLflow's versions, their rules and marks, and its aliases, read without touching the database."""
    if not database.exists():
        return {}
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
        if "registered_model_aliases" not in tables:
            return {}
        versions = connection.execute("select version from model_versions order by version").fetchall()
        tags = connection.execute(
            "select version, key, value from model_version_tags "
            "where key in ('decision_rule', 'withdrawn') order by version, key"
        ).fetchall()
        aliases = connection.execute("select alias, version from registered_model_aliases").fetchall()
    return {"versions": [version for (version,) in versions], "tags": tags, "aliases": dict(aliases)}


def _cohorts(store: ObjectStore) -> list[str]:
    keys = [info.key for info in store.list_objects("manifests")]
    return [key.removeprefix("manifests/").removesuffix(".jsonl") for key in keys if key.endswith(".jsonl")]


def _versions(store: ObjectStore, family: str) -> Any:
    """The current version of a family: its record, and the content of each object that it names."""
    record = _json(store, f"{family}/current.json")
    return None if record is None else [record, {key: _object(store, key) for key in _keys_of(record)}]


def _keys_of(record: dict[str, Any]) -> Iterator[str]:
    names = record.get("names") or ([record["name"]] if "name" in record else [])
    yield from (f"{record['prefix']}/{name}" for name in names)


def _object(store: ObjectStore, key: str) -> Any:
    data = store.read(key)
    if key.endswith(".tar.gz"):
        return _archive(data)
    if key.endswith(".json"):
        return json.loads(data)
    if key.endswith(".parquet"):
        return _digest(pd.read_parquet(io.BytesIO(data)).to_json().encode())
    return None if key.endswith(".html") else _digest(data)


def _archive(data: bytes) -> dict[str, Any]:
    members: dict[str, Any] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            if file is not None:
                bare = file.read()
                members[member.name] = json.loads(bare) if member.name.endswith(".json") else _digest(bare)
    return members


def _json(store: ObjectStore, key: str) -> Any:
    try:
        return store.read_json(key)
    except ObjectMissing:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items() if not _OF_THE_RUN.fullmatch(key)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _ATTEMPT.sub(r"-\1-N", value) if isinstance(value, str) else value


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two contents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(one.keys() | other.keys())
        return [found for name in names for found in differences(one.get(name), other.get(name), f"{place}/{name}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for number, pair in pairs for found in differences(*pair, f"{place}/{number}")]
    return [] if one == other else [f"{place}: {str(one)[:80]} is not {str(other)[:80]}"]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
