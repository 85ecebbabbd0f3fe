"""Decide, from what lies in landing now and what was seen before, which cohorts have settled and must run."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from penumo_assets.cohort.landing import COMPLETE_MARKER
from penumo_assets.resources.storage import ObjectStore


@dataclass(frozen=True)
class Arrival:
    """A cohort's landing folder at one moment: digest over its objects, and whether the sender calls it complete."""

    digest: str
    objects: int
    complete: bool


@dataclass(frozen=True)
class Seen:
    """What the last look remembered: the digest, since when it has not changed, and the digest that last ran."""

    digest: str
    since: float
    launched: str = ""


def look(store: ObjectStore) -> dict[str, Arrival]:
    """Every cohort that has objects in landing."""
    arrivals = {}
    for cohort in store.folders("landing"):
        infos = list(store.list_objects(f"landing/{cohort}"))
        if infos:
            entries = [[info.key, info.etag] for info in infos]
            digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]
            complete = any(info.key == f"landing/{cohort}/{COMPLETE_MARKER}" for info in infos)
            arrivals[cohort] = Arrival(digest, len(infos), complete)
    return arrivals


def settled(
    arrivals: Mapping[str, Arrival], seen: Mapping[str, Seen], now: float, settle_seconds: float
) -> tuple[list[str], dict[str, Seen]]:
    """Cohorts to run now, and what to remember.

    A cohort runs once per digest, after ``settle_seconds`` without a change or as soon as it is marked complete.
    Cohorts whose landing folder has gone are forgotten.
    """
    ready, remember = [], {}
    for cohort, arrival in sorted(arrivals.items()):
        before = seen.get(cohort)
        unchanged = before is not None and before.digest == arrival.digest
        since = before.since if before and unchanged else now
        launched = before.launched if before else ""
        if launched != arrival.digest and (arrival.complete or (unchanged and now - since >= settle_seconds)):
            ready.append(cohort)
            launched = arrival.digest
        remember[cohort] = Seen(arrival.digest, since, launched)
    return ready, remember


def dump_seen(seen: Mapping[str, Seen]) -> str:
    return json.dumps({cohort: asdict(item) for cohort, item in seen.items()}, sort_keys=True)


def load_seen(cursor: str | None) -> dict[str, Seen]:
    return {cohort: Seen(**item) for cohort, item in json.loads(cursor or "{}").items()}
