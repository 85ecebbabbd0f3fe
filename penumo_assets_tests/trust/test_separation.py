"""Phantoms and films, one key and another: never mixed, and nothing that was there is lost by a refusal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penumo_assets.cohort.publish import ManifestHead, dump_manifest, manifest_key, open_manifest
from penumo_assets.jobs.manifest import STAGE_ASSETS, ManifestRow, StageOutput
from penumo_assets.jobs.prepare.work import DEMO_KEY
from penumo_assets.promotion import NoChampion, read_champion
from penumo_assets_tests.backfills.stub_jobs import StubJobRunner, png
from penumo_assets_tests.house import House, failure_of, open_house
from penumo_assets_tests.registry import add_report, set_training_set

pytestmark = pytest.mark.trust
ANOTHER_KEY = "quite another key of a hospital"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with open_house(tmp_path) as house:
        house.resources["jobs"] = StubJobRunner(storage=house.resources["storage"])
        yield house


def land(house: House, cohort: str, phantoms: str = "", films: int = 4) -> None:
    """Pictures of as many patients; ``phantoms`` is what labels.csv says of each: t, f, or nothing."""
    marks = {"t": "true", "f": ""}
    said = [marks[each] for each in (phantoms or "f" * films)]
    rows = [f"{n}.png,{cohort}-{n},{('normal', 'pneumonia')[n % 2]},{mark}\n" for n, mark in enumerate(said)]
    for number in range(len(said)):
        house.store.write(f"landing/{cohort}/{number}.png", png(number))
    house.store.write(f"landing/{cohort}/labels.csv", ("file,patient_id,label,phantom\n" + "".join(rows)).encode())
    house.instance.add_dynamic_partitions("cohort", [cohort])


def prepare(house: House, cohort: str, **config: object) -> None:
    house.materialize(*STAGE_ASSETS, partition=cohort, config={"prepare_cohort": config})


def refused(house: House, cohort: str) -> str:
    return failure_of(house.materialize(*STAGE_ASSETS, partition=cohort, fails=True))


def test_another_key_is_refused_until_the_launch_says_rekey(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    land(house, "ward")
    prepare(house, "ward")
    before = house.store.read(manifest_key("ward"))
    assert b"a key for phantoms only" not in before
    for name, key in (("another", ANOTHER_KEY), ("no", "")):
        monkeypatch.setenv("PENUMO_DEID_KEY", key)
        assert "was prepared with another PENUMO_DEID_KEY" in refused(house, "ward"), name
        assert house.store.read(manifest_key("ward")) == before
    monkeypatch.setenv("PENUMO_DEID_KEY", ANOTHER_KEY)
    prepare(house, "ward", rekey=True)
    after = open_manifest(house.store, "ward")
    assert after.head.key not in (None, open_manifest(house.store, "none").head.key)
    assert after.head.key.encode() not in before
    prepare(house, "ward")  # from now on that key is the cohort's


def test_a_cohort_of_which_nothing_was_kept_takes_any_key(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.store.write("landing/ward/a.png", b"no picture")
    house.instance.add_dynamic_partitions("cohort", ["ward"])
    assert "no usable image" in refused(house, "ward")
    monkeypatch.setenv("PENUMO_DEID_KEY", ANOTHER_KEY)
    assert "no usable image" in refused(house, "ward")


def test_a_manifest_that_does_not_know_its_key_learns_it(house: House) -> None:
    land(house, "ward")
    prepare(house, "ward")
    manifest = open_manifest(house.store, "ward")
    earlier = ManifestHead(schema="penumo/manifest/1", settings=manifest.head.settings)
    house.store.write(manifest_key("ward"), dump_manifest(earlier, manifest.rows))
    prepare(house, "ward")
    assert open_manifest(house.store, "ward").head.key == manifest.head.key
    assert open_manifest(house.store, "ward").rows == manifest.rows


def test_the_demos_key_prepares_phantoms_and_nothing_else(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENUMO_DEID_KEY", DEMO_KEY)
    land(house, "films")
    land(house, "drawn", "tttt")
    assert "is the demo's, which everybody knows: set a secret of your own" in refused(house, "films")
    assert not house.store.exists(manifest_key("films"))
    prepare(house, "drawn")
    assert open_manifest(house.store, "drawn").phantoms


def test_a_cohort_of_phantoms_and_films_is_refused(house: House) -> None:
    land(house, "both", "ttff")
    assert "'both' mixes phantoms and films" in refused(house, "both")
    assert not house.store.exists(manifest_key("both"))


def test_a_training_set_of_phantoms_and_films_is_refused_and_the_one_before_stays(house: House) -> None:
    set_training_set(house)
    before = house.store.read("training_set/current.json")
    for cohort, phantoms in (("drawn", "tttt"), ("films", "ffff")):
        land(house, cohort, phantoms)
        prepare(house, cohort)
    message = failure_of(house.materialize("training_set", fails=True))
    assert "phantoms (drawn) and films (films) never train together" in message
    assert house.store.read("training_set/current.json") == before


@pytest.mark.parametrize("phantoms", [True, False, None])
def test_a_model_of_phantoms_is_no_champion_where_films_are(house: House, phantoms: bool | None) -> None:
    set_training_set(house)
    add_report(house, "resnet34")
    extra = {"phantom": "true"} if phantoms else {}
    row = ManifestRow(image_id="a", source="a", source_etag="1", source_bytes=1, extra=extra)
    row.stages["raw"] = StageOutput(key="raw/ward/1/a.png", sha256="0", fingerprint="0")
    head = ManifestHead(schema="penumo/manifest/1", phantoms=None if phantoms else phantoms)
    house.store.write(manifest_key("ward"), dump_manifest(head, [row]))
    house.instance.add_dynamic_partitions("cohort", ["ward"])
    if phantoms:
        house.materialize("champion_model")
        assert read_champion(house.store).phantoms
    else:
        message = failure_of(house.materialize("champion_model", fails=True))
        assert "resnet34: it was trained on phantoms, and there are films (ward): train on those" in message
        with pytest.raises(NoChampion):
            read_champion(house.store)
