"""The lung segmenter as an asset: bundled, given by URI, retrained; and what then becomes of the masks."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from penumo_assets.assets.segmenter import annotated, bundled_segmenter, current_segmenter
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.imaging.segment_weights import BUNDLED
from penumo_assets.phantoms import write_cohort
from penumo_assets.records import SegmenterRecord
from penumo_assets_tests.house import House, failure_of, open_house

COHORT = "annotated"
SHORT = {"stages": "32x2", "batch_size": 4, "folds": 2}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A cohort of eight patients with ground-truth masks, decoded."""
    with open_house(tmp_path_factory.mktemp("segmenter")) as house:
        write_cohort(house.folder / COHORT, COHORT, patients=8, seed=5, dicom=False)
        house.land(COHORT, house.folder / COHORT)
        house.materialize("raw_images", partition=COHORT)
        yield house


@pytest.fixture(autouse=True)
def _nothing_recorded(house: House) -> None:
    house.store.delete([SegmenterRecord.key()])


def settings(**values: object) -> dict:
    return {"lung_segmenter": values}


def test_by_default_the_bundled_weights_are_recorded(house: House) -> None:
    house.materialize("lung_segmenter")
    assert house.store.exists(SegmenterRecord.key())
    assert current_segmenter(house.store) == bundled_segmenter()


def test_every_decoded_image_with_a_mask_is_offered_for_training(house: House) -> None:
    rows = annotated(house.store, COHORT)
    decoded = [row for row in read_manifest(house.store, COHORT) if "raw" in row.stages]
    assert {f"raw/{row['file']}" for row in rows} == {row.stages["raw"].key for row in decoded}
    assert all(house.store.exists(f"landing/{name}") for row in rows for name in row["mask"])
    assert annotated(house.store, "nowhere") == []


def test_retrained_weights_are_measured_recorded_and_make_new_masks(house: House) -> None:
    result = house.materialize("lung_segmenter", config=settings(source="retrain", retrain=SHORT | {"min_dice": 0.0}))
    (event,) = result.asset_materializations_for_node("lung_segmenter")
    (score,) = event.metadata["held_out"].records
    assert score.data["cohort"] == COHORT
    assert score.data["patients"] >= 3
    assert 0.5 < score.data["dice"] <= 1
    assert event.metadata["mlflow_run"].value.strip("`")
    segmenter = current_segmenter(house.store)
    assert segmenter.sha256 != bundled_segmenter().sha256
    assert house.store.exists(f"{segmenter.prefix}/{segmenter.name}")
    prepared = house.materialize("raw_images", "lung_masks", partition=COHORT)
    events = {e.asset_key.to_user_string(): e for e in prepared.asset_materializations_for_node("prepare_cohort")}
    assert events["raw_images"].metadata["computed"].value == 0
    assert events["lung_masks"].metadata["computed"].value > 0


def test_weights_that_miss_the_floor_are_refused_and_the_ones_before_stay(house: House) -> None:
    configuration = settings(source="retrain", retrain=SHORT | {"min_dice": 1.0})
    result = house.materialize("lung_segmenter", config=configuration, fails=True)
    assert "held-out Dice below min_dice 1.0 in annotated" in failure_of(result)
    assert not house.store.exists(SegmenterRecord.key())


def test_retraining_without_any_mask_says_what_to_land(house: House) -> None:
    configuration = settings(source="retrain", retrain={"cohorts": ["nowhere"]})
    result = house.materialize("lung_segmenter", config=configuration, fails=True)
    assert "no image with a ground-truth mask in cohorts nowhere: land masks/" in failure_of(result)


@pytest.mark.parametrize("scheme", ["path", "uri"])
def test_own_weights_are_copied_in_under_their_digest(house: House, tmp_path: Path, scheme: str) -> None:
    own = tmp_path / "own weights.safetensors"
    shutil.copyfile(BUNDLED, own)
    digest = bundled_segmenter().sha256
    uri = own.as_uri() if scheme == "uri" else str(own)
    house.materialize("lung_segmenter", config=settings(source="weights", weights_uri=uri, weights_sha256=digest))
    own.unlink()
    segmenter = current_segmenter(house.store)
    assert segmenter.prefix == f"models/lung_segmenter/{digest[:16]}"
    assert house.store.read(f"{segmenter.prefix}/{segmenter.name}") == BUNDLED.read_bytes()


@pytest.mark.parametrize(
    ("content", "sha256", "message"),
    [
        (b"not safetensors", "", "own.safetensors: expected a safetensors file of LungUNet weights"),
        (BUNDLED.read_bytes(), "0" * 64, f"own.safetensors: expected weights with SHA-256 {'0' * 64}, found"),
    ],
)
def test_weights_that_are_not_what_was_expected_are_refused_by_name(
    house: House, tmp_path: Path, content: bytes, sha256: str, message: str
) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(content)
    configuration = settings(source="weights", weights_uri=str(own), weights_sha256=sha256)
    result = house.materialize("lung_segmenter", config=configuration, fails=True)
    assert message in failure_of(result)
    assert not house.store.exists(SegmenterRecord.key())
