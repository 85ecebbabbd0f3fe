"""A cohort's manifest, and how a materialization replaces it: in one step, or not at all.

Published objects are never written again: what changed gets a new key, in a folder named by its publication. First the
new objects are stored, then the manifest that names them takes the place of the one that was planned from, unless
another run has replaced that meanwhile, and last the objects that it no longer names are removed. So whoever reads a
manifest, and then what it names, never sees a mixture: an object is what the manifest says, or it is gone because there
is a newer manifest.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penumo_assets.cohort.landing import Landing
from penumo_assets.cohort.plan import PlanSettings, PreparePlan, apply_landing, are_phantoms, npz_names
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.jobs.manifest import STAGE_TABLE, ManifestError, ManifestRow, dump_rows, load_rows
from penumo_assets.jobs.prepare.work import KEY_VARIABLE, key_fingerprint
from penumo_assets.resources.compute.spec import JobResult
from penumo_assets.resources.storage.object_store import ObjectChanged, ObjectMissing, ObjectStore

TRIES = 5  # of planning again where other runs publish meanwhile


class ManifestHead(BaseModel):
    """The first line of a manifest.

    ``settings`` is how the stages were set when they last ran, ``phantoms`` whether a program drew the images, and
    ``key`` the fingerprint of the key that made the pseudonyms, ``segmenter`` the digest of the weights that drew the
    masks; None where an earlier version did not say.
    ``superseded`` names the objects that this manifest has replaced, and ``job`` the job whose outputs it took over:
    should the run die before it has removed them, the next one does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["penumo/manifest/1"] = Field("penumo/manifest/1", alias="schema")
    settings: dict[str, Any] = {}
    phantoms: bool | None = None
    key: str | None = None
    segmenter: str | None = None
    superseded: tuple[str, ...] = ()
    job: str | None = None


@dataclass(frozen=True)
class Manifest:
    """A cohort's manifest as it was read; everything is empty if it has none yet.

    ``version`` is the store's word for it, ``digest`` the SHA-256 of its bytes.
    """

    cohort: str
    head: ManifestHead = field(default_factory=lambda: ManifestHead(schema="penumo/manifest/1"))
    rows: tuple[ManifestRow, ...] = ()
    version: str | None = None
    digest: str = ""

    @property
    def phantoms(self) -> bool:
        """Whether a program drew the cohort's images."""
        if self.head.phantoms is None:
            return any(row.extra.get("phantom") == "true" for row in self.rows)
        return self.head.phantoms

    @property
    def other_key(self) -> str:
        """With what other key than the present one the cohort was prepared, in words; empty where it is the same."""
        if self.head.key in (None, key_fingerprint()):
            return ""
        return f"with another {KEY_VARIABLE}" if self.head.key else f"without {KEY_VARIABLE}"


@dataclass(frozen=True)
class Publication:
    """What publishing a cohort has to do: objects to copy (source key, target key), and the manifest to put there."""

    rows: tuple[ManifestRow, ...]
    head: ManifestHead
    copies: tuple[tuple[str, str], ...]


def manifest_key(cohort: str) -> str:
    return f"manifests/{cohort}.jsonl"


def open_manifest(
    store: ObjectStore, cohort: str, naming: Callable[[Manifest], Iterable[str]] | None = None
) -> Manifest:
    """The cohort's manifest with its version.

    With ``naming``, which is given the manifest without rows, only the rows in whose lines one of its texts stands:
    finding a line is a hundred times faster than parsing it.

    Raises
    ------
    ManifestError
        If it is not one; the message names the line.
    """
    try:
        data, version = store.read_version(manifest_key(cohort))
    except ObjectMissing:
        return Manifest(cohort)
    first, _, rest = data.partition(b"\n")
    try:
        head = ManifestHead.model_validate_json(first)
    except ValidationError as error:
        raise ManifestError(
            f"{manifest_key(cohort)} does not begin as a manifest: {error.errors()[0]['msg']}"
        ) from error
    manifest = Manifest(cohort, head, (), version, hashlib.sha256(data).hexdigest())
    if naming:
        texts = [json.dumps(text, ensure_ascii=False)[1:-1].encode() for text in naming(manifest)]
        found = any(text in rest for text in texts)
        lines = rest.splitlines(keepends=True) if found else []
        rest = b"".join(line for line in lines if any(text in line for text in texts))
    return replace(manifest, rows=tuple(load_rows(rest)))


def read_manifest(store: ObjectStore, cohort: str) -> list[ManifestRow]:
    """The rows of the cohort's manifest; none if it has none yet."""
    return list(open_manifest(store, cohort).rows)


def manifest_tags(store: ObjectStore) -> dict[str, str]:
    """The entity tag of each cohort's manifest."""
    found = {info.key: info.etag for info in store.list_objects(manifest_key("").split("/")[0])}
    return {key.split("/", 1)[1].removesuffix(".jsonl"): tag for key, tag in found.items() if key.endswith(".jsonl")}


def read_settings(store: ObjectStore, cohort: str) -> dict[str, Any]:
    """How a cohort was prepared, as `PrepareConfig` parses it; empty, which means the defaults, before it was."""
    return dict(open_manifest(store, cohort).head.settings)


def dump_manifest(head: ManifestHead, rows: Iterable[ManifestRow]) -> bytes:
    """The manifest's bytes."""
    line = json.dumps(head.model_dump(mode="json", by_alias=True), sort_keys=True)
    return f"{line}\n".encode() + dump_rows(rows)


def overtaken(store: ObjectStore, versions: Mapping[str, str | None], log: Callable[[str], object]) -> bool:
    """Whether another run has replaced a manifest since it was read in one of these ``versions``, by cohort.

    What failed on the manifests that were read is then worth planning again from those that are there now.
    """
    replaced = [cohort for cohort, version in versions.items() if open_manifest(store, cohort).version != version]
    if replaced:
        log(f"another run has published {', '.join(replaced)} meanwhile: planning again from what it left")
    return bool(replaced)


def plan_publication(
    landing: Landing,
    plan: PreparePlan,
    settings: PlanSettings,
    base: Manifest,
    computed: Iterable[ManifestRow] = (),
    job: JobResult | None = None,
) -> Publication:
    """Give every output its final key, and find what must be copied and removed.

    ``computed`` rows hold keys relative to the outputs of ``job``. An object with the name and the content of the one
    before stays where it is.
    """
    fresh = {item.row.image_id: set(item.compute) for item in plan.items}
    rows = sorted([*plan.rows, *computed], key=lambda row: row.source)
    for row in rows:
        if row.status == "accepted" or row.stage != "landing":
            apply_landing(row, landing)
    stored = {(stage, _name(out.key), out.identity): out for row in base.rows for stage, out in row.stages.items()}
    moves: list[tuple[ManifestRow, str, str, str]] = []
    tensors = tensor_names(rows, base.rows, settings.config)
    outputs = [(row, stage, output) for row in rows for stage, output in row.stages.items()]
    for row, stage, output in outputs:
        name = tensors[row.image_id] if stage == "npz" else _name(output.key)
        if kept := stored.get((stage, name, output.identity)):
            output.key, output.sha256 = kept.key, kept.sha256
        else:
            is_fresh = stage in fresh.get(row.image_id, ())
            source = job.key(*output.key.split("/", 1)) if job and is_fresh else output.key
            moves.append((row, stage, name, source))
    # The same objects published over the same manifest get the same keys: a run that repeats one that died finds them.
    content = [base.digest, sorted((stage, name, row.stages[stage].identity) for row, stage, name, _ in moves)]
    folder = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    copies = []
    for row, stage, name, source in moves:
        row.stages[stage].key = f"{stage}/{landing.cohort}/{folder}/{name}"
        copies.append((source, row.stages[stage].key))
    head = ManifestHead(
        schema="penumo/manifest/1",
        settings=_settings(base.head.settings, settings),
        phantoms=are_phantoms(landing),
        key=settings.key_fingerprint,
        segmenter=settings.segmenter_digest if "masks" in settings.stages else base.head.segmenter,
        superseded=tuple(sorted(keys_of(base.rows) - keys_of(rows))),
        job=job.job_name if job else None,
    )
    return Publication(tuple(rows), head, tuple(copies))


def publish(store: ObjectStore, base: Manifest, publication: Publication) -> None:
    """Carry out a publication; safe to repeat.

    Raises
    ------
    ObjectChanged
        If another run has published the cohort since ``base`` was read.
    ObjectMissing
        If an object to copy is gone: another run has finished and removed the outputs of the same job.
    """
    store.delete(base.head.superseded)
    lasting = {"settings", "phantoms", "key", "segmenter"}
    if publication.rows == base.rows and publication.head.model_dump(include=lasting) == base.head.model_dump(
        include=lasting
    ):
        return
    try:
        store.copy_all(publication.copies)
        store.swap(manifest_key(base.cohort), dump_manifest(publication.head, publication.rows), base.version)
    except (ObjectChanged, ObjectMissing):
        # Only what the manifest in place names can ever be named again.
        named = keys_of(open_manifest(store, base.cohort).rows)
        store.delete(target for _, target in publication.copies if target not in named)
        raise
    store.delete(publication.head.superseded)


def keys_of(rows: Iterable[ManifestRow]) -> set[str]:
    """Every object that the rows name."""
    return {output.key for row in rows for output in row.stages.values()}


def tensor_names(rows: Sequence[ManifestRow], before: Sequence[ManifestRow], config: PrepareConfig) -> dict[str, str]:
    """The file name of each film's tensor by image id; no two alike on a disk that ignores case.

    A film keeps the name that it had ``before``, if the template still gives it. The others take theirs in the order of
    their sources, so that films which land together get the same names wherever and whenever they do.
    """
    had = {row.image_id: _name(row.stages["npz"].key) for row in before if "npz" in row.stages}
    found: dict[str, str] = {}
    taken: set[str] = set()
    made = [row for row in sorted(rows, key=lambda row: row.source) if "npz" in row.stages]
    keeps = {row.image_id: had.get(row.image_id, "") in islice(npz_names(row, config), 2) for row in made}
    for row in sorted(made, key=lambda row: not keeps[row.image_id]):
        names = [had[row.image_id]] if keeps[row.image_id] else npz_names(row, config)
        found[row.image_id] = next(name for name in names if name.casefold() not in taken)
        taken.add(found[row.image_id].casefold())
    return found


def _name(key: str) -> str:
    return key.rsplit("/", 1)[-1]


def _settings(before: Mapping[str, Any], given: PlanSettings) -> dict[str, Any]:
    """What the stages that ran were set to; the others keep what they had."""
    config = given.config.model_dump(mode="json")
    parts = {name: config[name] for name in (STAGE_TABLE[stage].settings for stage in given.stages)}
    return {**before, "labels": config["labels"], **parts}
