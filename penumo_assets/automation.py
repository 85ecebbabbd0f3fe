"""When assets are brought up to date by themselves, how a backfill is cut into runs, and how old a report may get.

Conditions only take effect where a sensor that evaluates them is switched on (`penumo_assets.sensors.automation`).

**Backfills**: no asset has a backfill policy, and that is the policy: a run for each cohort or architecture. Measured
with jobs that take no time and one bad cohort among twenty (`benchmarks/backfill_policies.py`), ten cohorts in a run
saved 2.3 s of 2.7 s per cohort and took 9 of 19 good cohorts down with the bad one, a single run all 19. A cohort's
work takes minutes (on SageMaker a job needs that long to start), so the seconds are not worth it. Cohorts of one run
would also be computed one after the other whatever the pools allow, and share one retry and one data version. That
holds for `predictions` as for the imaging path; trainings and reports are two per backfill, where nothing can be saved.
`BackfillPolicy.multi_run(1)`, which reads like the same, tags its runs with a range of partitions instead of the
partition: the queue could not keep two runs of one cohort apart any more.
"""

from datetime import timedelta

from dagster import AssetSelection, AutomationCondition, FreshnessPolicy, define_asset_job

from penumo_assets.jobs.manifest import STAGE_ASSETS

# Named so that a backfill can be launched from the command line: dagster job backfill -j prepare --partitions a,b
JOBS = [
    define_asset_job(
        "choose_segmenter", AssetSelection.assets("lung_segmenter"), description="Which weights find the lungs."
    ),
    define_asset_job(
        "prepare",
        AssetSelection.assets(*STAGE_ASSETS),
        description="A cohort from landing to its tensors.",
    ),
    define_asset_job(
        "pack_training_set",
        AssetSelection.assets("training_set"),
        description="All tensors, split by patient.",
    ),
    define_asset_job(
        "train_and_evaluate",
        AssetSelection.assets("trained_model", "evaluation_report"),
        description="An architecture on the current training set, and its report.",
    ),
    define_asset_job(
        "choose_champion", AssetSelection.assets("champion_model"), description="The best model that passes its gates."
    ),
    define_asset_job("predict", AssetSelection.assets("predictions"), description="The champion on a cohort."),
]

TRAINING_CRON = "0 3 * * 6"  # Saturdays at three, UTC: the week's cohorts are in, and nobody waits for the machine

REPORT_FRESHNESS = FreshnessPolicy.time_window(fail_window=timedelta(days=30), warn_window=timedelta(days=14))
"""A report older than two missed training weeks is worth a look; one of last month is not a basis for a decision."""

# The segmenter's weights come with the package: that it was never materialized does not stop a cohort.
SETTLED_COHORT = (
    AutomationCondition.on_missing().ignore(AssetSelection.assets("lung_segmenter"))
    & ~AutomationCondition.in_progress()
    & ~AutomationCondition.execution_failed()
).with_label("a cohort has settled and nobody has prepared it")
"""For the four stages of a cohort. `landing` is reported when a cohort has settled, so a cohort flows from there to its
tensors in one run. A cohort that the landing sensors run already is left alone, and so is one that failed: it would
fail again."""

WEEKLY_IF_COHORTS_CHANGED = (
    (
        AutomationCondition.any_deps_updated().since_last_handled().with_label("a cohort changed")
        & AutomationCondition.cron_tick_passed(TRAINING_CRON)
    ).since_last_handled()  # type: ignore[misc]  # declared for assets and checks, meant for either
    & ~AutomationCondition.any_deps_in_progress()
    & ~AutomationCondition.in_progress()
).with_label("once a week, if a cohort changed")
"""For the training set. Tensors of cohorts that are just being prepared are waited for."""

TRAINING_SET_CHANGED = (
    AutomationCondition.any_deps_match(AutomationCondition.data_version_changed()).since_last_handled()
    & ~AutomationCondition.any_deps_in_progress()
    & ~AutomationCondition.in_progress()
).with_label("the training set holds something else")
"""For a model. A training set that was packed again with the same content does not train one."""

INPUTS_UPDATED = (
    AutomationCondition.any_deps_updated().since_last_handled()
    & ~AutomationCondition.any_deps_missing()
    & ~AutomationCondition.any_deps_in_progress()
    & ~AutomationCondition.in_progress()
).with_label("a new model or training set")
"""For a report."""

REPORTS_UPDATED = (
    AutomationCondition.any_deps_updated().since_last_handled()
    & ~AutomationCondition.any_deps_in_progress()
    & ~AutomationCondition.in_progress()
).with_label("a new report, and no other on its way")
"""For the champion. An architecture that was never evaluated does not hold up the others."""
