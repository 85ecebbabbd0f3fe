"""The champion behind an endpoint of SageMaker, if somebody asks for one.

Enters: `champion_model`. Leaves: `endpoint`: a variant that has answered the canary film, and the one before it.
"""

from typing import Any

from dagster import AssetExecutionContext, DataVersion, Failure, MaterializeResult, MetadataValue, asset

from penumo_assets.assets.pages import link, text_block
from penumo_assets.assets.shared import OWNERS, SERVING, launchpad_config, parsed
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.configs.endpoint import LARGEST_MB, EndpointConfig, Mode
from penumo_assets.models.errors import ModelError
from penumo_assets.promotion import NoChampion, disagreement
from penumo_assets.records import EndpointRecord, TrainingSetRecord
from penumo_assets.resources.endpoints import EndpointError, Endpoints
from penumo_assets.resources.model_package import ModelPackages
from penumo_assets.resources.storage.object_store import ObjectStore, StorageError
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import Tracking
from penumo_assets.serving.champion import serve_champion, take_down

EndpointLaunchpad = launchpad_config(EndpointConfig)

_REQUESTS = {
    Mode.serverless: "aws sagemaker-runtime invoke-endpoint --endpoint-name {name} --content-type application/dicom "
    "--body fileb://film.dcm answer.json",
    Mode.asynchronous: "aws sagemaker-runtime invoke-endpoint-async --endpoint-name {name} "
    "--content-type application/dicom --input-location s3://BUCKET/film.dcm",
    Mode.batch: "aws sagemaker create-transform-job --model-name {name} ...",
}
_REQUESTS[Mode.realtime] = _REQUESTS[Mode.serverless]


@asset(
    deps=["champion_model"],
    group_name=SERVING,
    owners=OWNERS,
    kinds={"sagemaker"},
    code_version="1",
    description="The champion on SageMaker, once a launch names a mode: an endpoint (serverless, realtime, async) or a "
    "model for transform jobs (batch). A new version answers a canary film before it gets any traffic; the one before "
    "is kept, and `penumo rollback` goes back to it.",
)
def endpoint(
    context: AssetExecutionContext,
    config: EndpointLaunchpad,  # type: ignore[valid-type]
    storage: Storage,
    tracking: Tracking,
    packages: ModelPackages,
    endpoints: Endpoints,
) -> MaterializeResult:
    """Bring the champion into service, or take it out."""
    settings, store = parsed(EndpointConfig, config), storage.store
    held = EndpointRecord.find(store)
    try:
        if problem := settings.refusal(_largest_film(store) if settings.mode in LARGEST_MB else 0):
            raise EndpointError(problem)
        if settings.mode is Mode.off:
            take_down(store, endpoints, context.log.info)
        if settings.mode is Mode.off or (settings.mode is Mode.current and held is None):
            return MaterializeResult(metadata={"state": "off: a launch with a mode, such as realtime, switches it on"})
        if problem := disagreement(store, tracking):
            raise EndpointError(problem)
        wanted = None if settings.mode is Mode.current else settings
        record, moved = serve_champion(store, packages, endpoints, wanted, context.log.info)
        return MaterializeResult(
            metadata=_page(record, moved, endpoints), data_version=DataVersion(record.variant.name)
        )
    except EndpointError as error:
        raise Failure(str(error), allow_retries=error.transient) from error
    except (NoChampion, StorageError, ModelError) as error:
        raise Failure(str(error), allow_retries=False) from error


def _largest_film(store: ObjectStore) -> int:
    """Bytes of the largest film that the current training set was made of; 0 if there is none."""
    training = TrainingSetRecord.find(store)
    cohorts = training.cohorts if training else ()
    return max((row.source_bytes or 0 for cohort in cohorts for row in read_manifest(store, cohort)), default=0)


def _page(record: EndpointRecord, moved: bool, endpoints: Endpoints) -> dict[str, Any]:
    """What the asset's page shows of what serves."""
    variant, service = record.variant, endpoints.open()
    mode = variant.settings.mode
    name = variant.name if mode is Mode.batch else service.name(mode)
    state = None if mode is Mode.batch else service.state(name)
    return {
        "endpoint": MetadataValue.text(name) if mode is Mode.batch else link(name, service.address(name)),
        "state": state.status if state else "a model for transform jobs",
        "mode": mode.value,
        "model_version": variant.version,
        "model_package": variant.package,
        "traffic_moved": moved,
        "previous_version": record.previous.version if record.previous else "none",
        "largest_request_mb": LARGEST_MB[mode],
        "settings": MetadataValue.json(variant.settings.model_dump(mode="json")),
        "request": text_block(_REQUESTS[mode].format(name=name)),
    }
