"""The stages of a tiny installation, one after the other: each is disturbed alone, from the end of the one before."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from penumo_assets.partitions import cohorts
from penumo_assets.phantoms import write_cohort
from penumo_assets.promotion import NoChampion, rollback
from penumo_assets_tests.house import House

COHORT = "ward"
IMAGING = ("raw_images", "lung_masks", "preprocessed_images", "npz_tensors")
NAMES = {"npz": {"filename": "{patient_id}_{image_id}"}}
MASKED = NAMES | {"enhance": {"apply_mask": True}}
# This salt gives every split at least two patients of each class.
DATASET = {"test_fraction": 0.25, "validation_fraction": 0.25, "salt": "s0"}
SPLITS = {"training_set": {"cohorts": [COHORT], "dataset": DATASET}}
TRAINING = {"epochs": 2, "warmup_epochs": 0, "resolution": 32, "batch_size": 8, "num_workers": 0, "checkpoint_steps": 1}
OFF = dict.fromkeys(("min_roc_auc_low", "min_sensitivity", "max_ece", "min_subgroup_roc_auc"))


@dataclass(frozen=True)
class Stage:
    """What is launched, what happens before it that nobody disturbs, and which processes there are to kill."""

    name: str
    run: Callable[[House], None]
    arrange: Callable[[House], None] = lambda house: None
    victims: tuple[str, ...] = ("runner", "supervisor", "program", "all")


def land(house: House) -> None:
    folder = house.folder / "phantoms"
    write_cohort(folder, COHORT, patients=20, seed=3, dicom=False, broken=False)
    house.land(COHORT, folder)


def change_landing(house: House) -> None:
    """One film rewritten, one under another name."""
    first, second = sorted((house.folder / "root" / "landing" / COHORT / "images").iterdir())[:2]
    darker = first.with_name("new" + first.suffix)
    cv2.imwrite(str(darker), (cv2.imread(str(first), cv2.IMREAD_UNCHANGED) * 0.9).astype(np.uint8))
    darker.replace(first)
    second.rename(second.with_name("renamed" + second.suffix))


def prepare(config: dict) -> Callable[[House], None]:
    return lambda house: materialize(house, *IMAGING, partition=COHORT, config={"prepare_cohort": config})


def train(architecture: str) -> Callable[[House], None]:
    return lambda house: materialize(house, "trained_model", partition=architecture, config={"trained_model": TRAINING})


def evaluate(architecture: str, fails: bool = False) -> Callable[[House], None]:
    gates = OFF | {"max_ece": 0.0} if fails else OFF  # which no model has
    config = {"evaluation_report": {"bootstrap": 50, "gates": gates}}
    return lambda house: materialize(house, "evaluation_report", partition=architecture, config=config, fails=fails)


def challenge(house: House) -> None:
    """A second network, and a gate that the champion does not pass."""
    train("resnet50")(house)
    evaluate("resnet50")(house)
    evaluate("resnet34", fails=True)(house)


def go_back(house: House) -> None:
    try:
        rollback(house.store, house.resources["tracking"], house.resources["packages"], to="1")
    except NoChampion as error:
        if "is the champion already" not in str(error):  # the launch that was killed had come to its end
            raise


def materialize(house: House, *assets: str, **options) -> None:
    house.instance.add_dynamic_partitions(str(cohorts.name), [COHORT])
    house.materialize(*assets, **options)


WITH_WORKERS = ("runner", "supervisor", "program", "worker", "all")
WITHOUT_JOB = ("runner",)
STAGES = (
    Stage("prepare", prepare(NAMES), land, WITH_WORKERS),
    Stage("change", prepare(NAMES), change_landing),
    Stage("configure", prepare(MASKED), victims=WITH_WORKERS),
    Stage("pack", lambda house: materialize(house, "training_set", config=SPLITS)),
    Stage("train", train("resnet34")),
    Stage("evaluate", evaluate("resnet34")),
    Stage("register", lambda house: materialize(house, "champion_model"), victims=WITHOUT_JOB),
    Stage("replace", lambda house: materialize(house, "champion_model"), challenge, WITHOUT_JOB),
    Stage("predict", lambda house: materialize(house, "predictions", partition=COHORT)),
    Stage("rollback", go_back, victims=WITHOUT_JOB),
)
