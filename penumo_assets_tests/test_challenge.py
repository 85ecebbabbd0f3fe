"""A new model against the champion: the same question, the same test patients, and no silent step back."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dagster import ExecuteInProcessResult
from pydantic import ValidationError

from penumo_assets.promotion import read_champion, read_version, rollback
from penumo_assets_tests.house import House, open_house
from penumo_assets_tests.registry import add_report, alias, set_training_set

PATIENTS = 60


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """The champion is version 1, which tells every second test patient from the others almost without fail."""
    with open_house(tmp_path) as house:
        set_training_set(house)
        add_model(house, "resnet34", "train-a", skill=4.0)
        house.materialize("champion_model")
        yield house


def add_model(
    house: House,
    architecture: str,
    job: str,
    skill: float,
    validation_auc: float = 0.9,
    split: str = "test",
    seed: int = 7,
) -> None:
    """A report, and predictions of a split whose classes lie ``skill`` standard deviations apart."""
    add_report(house, architecture, job=job, validation_auc=validation_auc)
    labels = np.arange(PATIENTS) % 2
    score = np.random.default_rng(seed).normal(size=PATIENTS) + skill * labels
    table = pd.DataFrame(
        {
            "split": split,
            "cohort": "ward",
            "image_id": [f"i{n}" for n in range(PATIENTS)],
            "patient_id": [f"p{n}" for n in range(PATIENTS)],
            "label": np.where(labels, "pneumonia", "normal"),
            "probability_pneumonia": 1 / (1 + np.exp(-score)),
        }
    )
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    house.store.write(f"reports/{architecture}/{job}/predictions.parquet", buffer.getvalue())


def page(result: ExecuteInProcessResult) -> dict:
    (event,) = result.asset_materializations_for_node("champion_model")
    return event.metadata


def compared(shown: dict, split: str = "test") -> dict:
    """The figures of a split on the page."""
    return {record.data["figure"]: record.data[split] for record in shown["comparison"].records}


def aliases(house: House) -> tuple[str | None, str | None, str | None]:
    return alias(house, "champion"), alias(house, "challenger"), alias(house, "previous")


def test_a_worse_model_stays_a_challenger_and_its_comparison_is_on_the_page(house: House) -> None:
    before = house.store.read("models/champion.json")
    add_model(house, "resnet50", "train-b", skill=0.0, validation_auc=0.99)
    shown = page(house.materialize("champion_model"))
    assert house.store.read("models/champion.json") == before
    assert aliases(house) == ("1", "2", None)
    assert shown["model_version"].value == "1"
    assert shown["challenger"].value == "version 2 (resnet50)"
    assert re.fullmatch(
        r"test ROC-AUC 0\.\d{3}, significantly below the champion's [01]\.\d{3}", shown["stays_a_challenger"].value
    )
    explanation = shown["explanation"].value.replace("\\", "")
    assert f"on the same {PATIENTS} patients (difference -0." in explanation
    assert explanation.endswith("To use it nevertheless: materialize champion_model with promote: force.")
    figures = compared(shown)
    assert figures["worse"] is True
    assert figures["high"] < 0
    assert figures["patients"] == PATIENTS
    version = read_version(house.store, "2")
    assert (version.approval, version.promoted.split(":")[0]) == ("PendingManualApproval", "not promoted")


@pytest.mark.parametrize(("margin", "version"), [(0.0, "1"), (0.2, "2")])
def test_a_retraining_that_falls_on_validation_does_not_replace_its_champion(
    tmp_path: Path, margin: float, version: str
) -> None:
    """From 0.97 to 0.91 is no significant loss among 60 patients."""
    with open_house(tmp_path) as house:
        set_training_set(house)
        add_model(house, "resnet34", "train-a", 2.1, split="validation")
        house.materialize("champion_model")
        add_model(house, "resnet34", "train-b", 1.9, split="validation", seed=31)
        shown = page(house.materialize("champion_model", config={"champion_model": {"margin": margin}}))
        assert read_champion(house.store).version == version
        figures = compared(shown, "validation")
        assert (figures["worse"], figures["difference"] < 0 < figures["high"]) == (False, True)
        assert ("stays_a_challenger" in shown) is (not margin)


def test_the_best_of_the_others_is_registered_as_challenger_with_its_comparison(tmp_path: Path) -> None:
    """As after the first training of two architectures."""
    with open_house(tmp_path) as house:
        set_training_set(house)
        add_model(house, "resnet34", "train-a", skill=1.9, validation_auc=0.8, seed=31)
        add_model(house, "resnet50", "train-b", skill=2.0, validation_auc=0.9)
        shown = page(house.materialize("champion_model"))
        assert aliases(house) == ("1", "2", None)
        assert read_champion(house.store).architecture == "resnet50"
        assert shown["challenger"].value == "version 2 (resnet34)"
        assert shown["stays_a_challenger"].value == "validation ROC-AUC 0.800, not above the champion's 0.900"
        figures = compared(shown)
        assert figures["champion"] > figures["challenger"]
        assert (figures["worse"], figures["patients"]) == (False, PATIENTS)
        assert "nevertheless: penumo rollback --to 2" in shown["explanation"].value.replace("\\", "")
        version = read_version(house.store, "2")
        assert version.approval == "PendingManualApproval"
        assert version.promoted == "not promoted: its validation ROC-AUC of 0.800 is not above the 0.900 of version 1"
        described = house.resources["tracking"].client().get_model_version("pneumonia-classifier", "2").description
        assert described.endswith(f"- Champion or challenger: {version.promoted}")
        before = aliases(house)
        house.materialize("champion_model")
        assert aliases(house) == before, "nothing is registered twice"


def test_a_second_that_may_not_win_is_no_challenger(house: House) -> None:
    add_report(house, "resnet50", job="train-b", validation_auc=0.8, gates={"min_roc_auc_low": 1.0})
    shown = page(house.materialize("champion_model"))
    assert shown["challenger"].value == "none"
    assert "stays_a_challenger" not in shown
    assert aliases(house) == ("1", None, None)


def test_who_was_replaced_is_previous_and_an_older_challenger_is_none_any_more(house: House) -> None:
    add_model(house, "resnet50", "train-b", skill=0.0, validation_auc=0.99)
    house.materialize("champion_model")
    assert aliases(house) == ("1", "2", None)
    add_model(house, "resnet50", "train-c", skill=4.1, validation_auc=0.99)
    house.materialize("champion_model")
    assert aliases(house) == ("3", None, "1")
    add_model(house, "resnet50", "train-d", skill=4.2, validation_auc=0.995)
    history = read_version(house.store, "1").promoted
    house.materialize("champion_model")
    assert aliases(house) == ("4", "1", "3")
    assert read_version(house.store, "1").promoted == history, "once champion, it keeps how it became that"


def test_a_challenger_that_becomes_champion_is_challenger_no_more(house: House) -> None:
    add_model(house, "resnet50", "train-b", skill=3.0, validation_auc=0.8)
    house.materialize("champion_model")
    assert aliases(house) == ("1", "2", None)
    rollback(*(house.store, house.resources["tracking"], house.resources["packages"]), to="2")
    assert aliases(house) == ("2", None, "1")


def test_force_promotes_it_and_the_record_says_so(house: House) -> None:
    add_model(house, "resnet50", "train-b", skill=0.0, validation_auc=0.99)
    house.materialize("champion_model")
    house.materialize("champion_model", config={"champion_model": {"promote": "force"}})
    champion = read_champion(house.store)
    assert (champion.version, champion.previous) == ("2", "1")
    assert champion.promoted.startswith("forced, although its test ROC-AUC")
    assert aliases(house) == ("2", None, "1")
    house.materialize("champion_model")
    assert read_champion(house.store) == champion, "chosen once more, it is still the one that was forced"
    described = house.resources["tracking"].client().get_model_version("pneumonia-classifier", "2").description
    assert f"- Champion or challenger: {champion.promoted}" in described


def test_a_loss_within_the_margin_is_no_loss(house: House) -> None:
    add_model(house, "resnet50", "train-b", skill=0.0, validation_auc=0.99)
    house.materialize("champion_model", config={"champion_model": {"margin": 0.9}})
    assert read_champion(house.store).version == "2"


def test_a_model_that_is_as_good_takes_over(house: House) -> None:
    add_model(house, "resnet50", "train-b", skill=4.1, validation_auc=0.99)
    shown = page(house.materialize("champion_model"))
    assert read_champion(house.store).version == "2"
    assert shown["promoted"].value.startswith("not significantly worse: difference ")


def test_a_model_of_another_question_stays_a_challenger(house: House) -> None:
    add_model(house, "resnet50", "train-b", skill=9.0, validation_auc=0.99)
    key = "reports/resnet50/train-b/report.json"
    report = house.store.read_json(key)
    report["data"]["positive_class"] = "normal"
    house.store.write_json(key, report)
    shown = page(house.materialize("champion_model"))
    assert shown["stays_a_challenger"].value == "positive class pneumonia before, normal now"
    assert read_champion(house.store).version == "1"


def test_a_champion_whose_test_images_are_gone_is_not_compared_and_the_record_says_so(house: House) -> None:
    add_model(house, "resnet50", "train-b", skill=0.0, validation_auc=0.99)
    house.store.delete(["reports/resnet34/train-a/predictions.parquet"])
    house.materialize("champion_model")
    assert read_champion(house.store).promoted == "not compared: the test predictions of one of the two models are gone"


def test_another_word_than_compare_or_force_is_refused(house: House) -> None:
    with pytest.raises(ValidationError, match=r"compare\|force"):
        house.materialize("champion_model", config={"champion_model": {"promote": "always"}})
