"""Everything Dagster loads: a table of contents."""

import warnings
from collections.abc import Mapping
from typing import Any

from dagster import BetaWarning, Definitions, LoggerDefinition, in_process_executor

from penumo_assets.assets.champion import champion_model
from penumo_assets.assets.dataset import training_set
from penumo_assets.assets.endpoint import endpoint
from penumo_assets.assets.evaluation import evaluation_report
from penumo_assets.assets.external import external_validation
from penumo_assets.assets.inference import predictions
from penumo_assets.assets.ingest import landing
from penumo_assets.assets.prepare import prepare_cohort
from penumo_assets.assets.search import hyperparameter_search
from penumo_assets.assets.segmenter import lung_segmenter
from penumo_assets.assets.training import trained_model
from penumo_assets.automation import JOBS
from penumo_assets.checks import ASSET_CHECKS
from penumo_assets.resources.profile import profile_resources
from penumo_assets.sensors import sensors

# Our dagster.yaml ends the terminal's log in words; the lock pins the Dagster that this was tried with.
warnings.filterwarnings("ignore", "Handling yaml-defined logging", BetaWarning)

ASSETS: list[Any] = [
    landing,
    lung_segmenter,
    prepare_cohort,
    training_set,
    hyperparameter_search,
    trained_model,
    evaluation_report,
    champion_model,
    endpoint,
    external_validation,
    predictions,
]


def build_definitions(
    overrides: Mapping[str, Any] | None = None, loggers: Mapping[str, LoggerDefinition] | None = None
) -> Definitions:
    """The whole application, with resources replaced by name: ``storage, jobs, tracking, mlflow, packages,
    endpoints``."""
    return Definitions(
        assets=ASSETS,
        asset_checks=ASSET_CHECKS,
        jobs=JOBS,
        sensors=sensors(),
        resources={**profile_resources(), **(overrides or {})},
        loggers=loggers,
        # The work happens in jobs; a process per step would only add seconds of imports to every asset check.
        executor=in_process_executor,
    )


defs = build_definitions()
