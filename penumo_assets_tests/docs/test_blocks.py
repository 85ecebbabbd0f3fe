"""The blocks of docs/tutorial.md and docs/operations.md, run as they stand there, one after the other, on phantoms.

What a page leaves to its reader is put in: a folder of films, a key, a place for Dagster's instance. Models come from
short trainings, not from the ones that the pages launch at their defaults. What is not run has a
reason here.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penumo_assets.cohort.publish import read_manifest
from penumo_assets.instance import open_instance
from penumo_assets.phantoms import write_cohort
from penumo_assets.promotion import read_champion
from penumo_assets_tests.docs.commands import CHECKOUT, blocks
from penumo_assets_tests.house import House, place_database
from penumo_assets_tests.in_process import resources_in_process
from penumo_assets_tests.registry import add_report

README, TUTORIAL, OPERATIONS = (CHECKOUT / name for name in ("README.md", "docs/tutorial.md", "docs/operations.md"))
TRAINING_LINE = "penumo launch trained_model,evaluation_report --partition resnet34\n"
TINY = {"epochs": 1, "warmup_epochs": 0, "resolution": 32, "batch_size": 16, "num_workers": 0}
OPEN = dict.fromkeys(("min_roc_auc_low", "min_sensitivity", "max_ece", "min_subgroup_roc_auc"))
# A word of each block that is run below, and of each that is not, with the reason.
RUN = {
    TUTORIAL: (
        "penumo env",
        "penumo land ward-7",
        "penumo rejected",
        "launch training_set",
        "penumo predict",
        "penumo segment",
    ),
    OPERATIONS: (
        "penumo land ward-7",
        "penumo settings ward-7",
        "penumo retire",
        "dagster sensor start",
        "dagster instance concurrency",
        "dagster job backfill",
        "for cohort in",
        'rm "${PENUMO_ROOT:-.penumo}',
        "penumo rollback",
        '"cohorts": ["ward-7", "ward-8"]',
    ),
}
NOT_RUN = {
    TUTORIAL: {"make demo": "penumo_assets_tests/test_demo.py runs it"},
    README: {
        "penumo land ward-7": "the tutorial's lines, which are run: see below",
        "make test    #": "sets up an environment; .ci/run does, and the demo takes minutes",
        "make emulate": "penumo_assets_tests/aws runs the whole graph on the same emulator",
        "PENUMO_PROFILE=aws": "needs an account",
    },
    OPERATIONS: {
        "--layout kermany": "needs the data sets; penumo_assets_tests/cohort/test_layouts.py lands each in small",
        "--partition resnet50": "two trainings at their defaults take minutes; the rest is the tutorial's",
        "hyperparameter_search": "a dozen trainings; penumo_assets_tests/assets/test_search.py runs small ones",
        '"source": "retrain"': "a training of an hour; penumo_assets_tests/assets/test_segmenter.py runs a small one",
        '"mode": "realtime"': "needs AWS; penumo_assets_tests/aws/test_endpoint.py launches each mode on the emulator",
        "git pull": "changes the checkout",
    },
}


@dataclass
class Installation:
    """A root of its own, and a shell in which the pages' commands find it."""

    house: House
    environment: dict[str, str]

    def block(self, page: Path, containing: str) -> str:
        """The text of the one block of a page that holds these words, with what a reader puts in."""
        (block,) = [block for block in blocks(page) if containing in block]
        return (
            block.replace("/path/to/folder", str(self.house.folder / "ward-7"))
            .replace(". .venv/bin/activate\n", "")  # the tests' environment is on the PATH
            .replace("PENUMO_DEID_KEY=...", "PENUMO_DEID_KEY='a key for phantoms only'")
        )

    def run(self, script: str, folder: Path = CHECKOUT) -> str:
        """What a script says; it must end well, every command of it."""
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=folder, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        return done.stdout


def test_the_short_way_in_the_readme_is_the_tutorials() -> None:
    (short,) = [block for block in blocks(README) if "penumo land ward-7" in block]
    tutorial = {line.strip() for block in blocks(TUTORIAL) for line in block.splitlines()}
    lines = [line.split("  #")[0].strip() for line in short.splitlines()]
    assert [line for line in lines if not any(known.startswith(line) for known in tutorial)] == []


@pytest.mark.parametrize("page", NOT_RUN, ids=lambda page: page.name)
def test_every_block_is_run_or_there_is_a_reason_why_not(page: Path) -> None:
    for block in blocks(page):
        known = [words for words in (*RUN.get(page, ()), *NOT_RUN[page]) if words in block]
        assert len(known) == 1, block


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """ward-7 landed and prepared by the tutorial's lines, and the training set packed; ward-8 landed."""
    folder = tmp_path_factory.mktemp("docs")
    # Of these twelve patients the hash puts some of either class on each side.
    write_cohort(folder / "ward-7", "film-72", patients=12, seed=0, dicom=False)
    write_cohort(folder / "ward-8", "ward-8", patients=3, seed=1, dicom=False)
    write_cohort(folder / "films", "film", patients=1, seed=9, dicom=True, broken=False)
    next((folder / "films" / "images").iterdir()).rename(folder / "film.dcm")
    next((folder / "ward-7" / "images").glob("*_1.png")).rename(folder / "other.png")
    ours = ("PENUMO_", "DAGSTER_", "MLFLOW_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    binaries = Path(sys.executable).parent
    environment = kept | {
        "PATH": f"{binaries}{os.pathsep}{kept['PATH']}",
        "VIRTUAL_ENV": str(binaries.parent),
        "PENUMO_ROOT": str(folder / "root"),
        "DAGSTER_HOME": str(folder / "root" / "dagster"),
        "PENUMO_DEID_KEY": "a key for phantoms only",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(ours)]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        with open_instance() as instance:
            place_database(folder / "root")
            here = Installation(House(instance, resources_in_process(), folder), environment)
            here.run(here.block(TUTORIAL, "penumo land ward-7"))
            here.run(here.block(TUTORIAL, "launch training_set").replace(TRAINING_LINE, ""))
            here.house.land("ward-8", folder / "ward-8")
            yield here


@pytest.fixture(scope="module")
def champions(landed: Installation) -> Installation:
    """Three champions, one after the other, however they compare; the tutorial's own commands find the last one.

    Only that one is asked anything, so only that one is trained.
    """
    house = landed.house
    forced = {"champion_model": {"promote": "force"}}
    for job in ("first", "second"):
        add_report(house, "resnet34", job=job, digest=house.store.read_json("training_set/current.json")["digest"])
        house.materialize("champion_model", config=forced)
    house.materialize("trained_model", partition="resnet34", config={"trained_model": TINY})
    evaluation = {"evaluation_report": {"bootstrap": 50, "gates": OPEN}}
    house.materialize("evaluation_report", partition="resnet34", config=evaluation)
    house.materialize("champion_model", config=forced)
    said = landed.run(landed.block(TUTORIAL, "penumo predict"), landed.house.folder)
    assert "film.dcm: " in said
    assert "PHANTOMS" in said
    return landed


@pytest.mark.slow
def test_a_cohort_is_landed_and_prepared(landed: Installation) -> None:
    landed.run(landed.block(OPERATIONS, "penumo land ward-7"))
    assert sum(row.status == "accepted" for row in read_manifest(landed.house.store, "ward-7")) >= 12


@pytest.mark.slow
def test_a_champion_is_chosen_and_predicts(champions: Installation) -> None:
    record = champions.house.store.read_json("predictions/ward-7/current.json")
    assert record["model_version"] == "3"


@pytest.mark.slow
def test_single_films_are_answered_with_pictures(champions: Installation) -> None:
    assert any((champions.house.folder / "pictures").iterdir())


@pytest.mark.slow
def test_the_python_example_prepares_a_film_and_asks_the_champion_both_ways(champions: Installation) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", (CHECKOUT / "docs" / "python.md").read_text(), re.M | re.S)
    assert len([line for line in example.splitlines() if line]) <= 14
    (champions.house.folder / "example.py").write_text(example)
    said = champions.run(f"{sys.executable} example.py", champions.house.folder)
    answers = [[float(number) for number in re.findall(r"\d\.\d+(?:e-\d+)?", line)] for line in said.splitlines()]
    assert answers[0] == pytest.approx(answers[1], abs=1e-4)
    assert sum(answers[0]) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_settings_and_rejected_files_are_shown_and_a_folder_is_segmented(landed: Installation) -> None:
    assert str(landed.house.folder / "root") in landed.run(landed.block(TUTORIAL, "penumo env"))
    assert "broken_text.dcm" in landed.run(landed.block(TUTORIAL, "penumo rejected"))
    landed.run(landed.block(TUTORIAL, "penumo segment"), landed.house.folder)
    assert (landed.house.folder / "masks" / "segment.csv").is_file()


@pytest.mark.slow
def test_a_champion_is_rolled_back_to_the_one_before_and_to_a_version(champions: Installation) -> None:
    first, second = champions.block(OPERATIONS, "penumo rollback").strip().splitlines()
    champions.run(first)
    assert read_champion(champions.house.store).version == "2"
    champions.run(second)
    assert read_champion(champions.house.store).version == "3"


@pytest.mark.slow
def test_sensors_are_switched_and_limits_set(landed: Installation) -> None:
    said = landed.run(landed.block(OPERATIONS, "dagster sensor start"))
    assert "Started sensor landing_listing" in said
    landed.run(landed.block(OPERATIONS, "dagster instance concurrency"))
    info = landed.house.instance.event_log_storage.get_concurrency_info("sagemaker_processing")
    assert info.slot_count == 4


@pytest.mark.slow
def test_several_cohorts_are_prepared_by_a_loop_and_by_a_backfill(landed: Installation) -> None:
    assert "failed" not in landed.run(landed.block(OPERATIONS, "for cohort in"))
    assert read_manifest(landed.house.store, "ward-8")
    landed.run(landed.block(OPERATIONS, "dagster job backfill"))
    (backfill,) = landed.house.instance.get_backfills()
    assert sorted(backfill.partition_names or ()) == ["ward-7", "ward-8"]
    landed.run(landed.block(OPERATIONS, '"cohorts": ["ward-7", "ward-8"]'))
    assert landed.house.store.read_json("training_set/current.json")["cohorts"] == ["ward-7", "ward-8"]


@pytest.mark.slow
def test_lost_objects_are_computed_anew(landed: Installation) -> None:
    store = landed.house.store
    (lost, *_), rows = store.list_objects("npz/ward-7"), read_manifest(store, "ward-7")
    store.delete([lost.key])
    landed.run(landed.block(OPERATIONS, 'rm "${PENUMO_ROOT:-.penumo}'))
    assert store.exists(lost.key)
    assert read_manifest(store, "ward-7") == rows


@pytest.mark.slow
def test_all_films_of_a_patient_are_kept_and_the_first_has_the_patients_name(landed: Installation) -> None:
    tensors: dict[str, list[str]] = {}
    for row in read_manifest(landed.house.store, "ward-7"):
        if "npz" in row.stages:
            tensors.setdefault(row.patient_id or "", []).append(row.stages["npz"].key.rsplit("/", 1)[-1])
    assert max(map(len, tensors.values())) > 1
    assert all(names.count(f"{patient}.npz") == 1 for patient, names in tensors.items())


@pytest.mark.slow
def test_a_cohort_is_retired_and_brought_back(landed: Installation) -> None:
    said = landed.run(landed.block(OPERATIONS, "penumo retire"))
    assert "ward-8 is retired" in said
    assert "ward-8 is in use again" in said
    assert "ward-8" in landed.house.instance.get_dynamic_partitions("cohort")


@pytest.mark.slow
def test_a_cohorts_settings_are_kept_and_shown(landed: Installation) -> None:
    """Last: the cohort is prepared otherwise from here on."""
    said = landed.run(landed.block(OPERATIONS, "penumo settings ward-7"), landed.house.folder)
    default, own = (line for line in said.splitlines() if line.startswith("# ward-7: "))
    assert "the default" in default
    assert "the cohort's (settings/ward-7.yaml): enhance.apply_mask True (else False)" in own
