"""Two switches in the UI: cohorts become tensors by themselves, and a week's new cohorts train and evaluate models."""

from dagster import AssetSelection, AutomationConditionSensorDefinition, DefaultSensorStatus

from penumo_assets.sensors.launches import PREPARED

WEEKLY_TRAINING = AssetSelection.assets("training_set", "trained_model", "evaluation_report", "champion_model")

AUTOMATION_SENSORS = [
    AutomationConditionSensorDefinition(
        "cohorts_to_tensors",
        target=PREPARED,
        default_status=DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=30,
        description="Prepares each cohort that has settled in landing, up to npz_tensors, in one run. The landing "
        "sensors do so for what they find; this one also for cohorts that `penumo land` or a person added.",
    ),
    AutomationConditionSensorDefinition(
        "weekly_training",
        target=WEEKLY_TRAINING,
        default_status=DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=60,
        description="Every Saturday, if a cohort changed: packs the training set, trains and evaluates each "
        "architecture if it holds something new, and lets the reports choose the champion.",
    ),
]
