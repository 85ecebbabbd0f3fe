"""The champion's endpoint: which variant it takes, and whether that may be served."""

from penumo_assets.configs.endpoint import EndpointConfig
from penumo_assets.promotion import read_champion
from penumo_assets.records import EndpointRecord, VersionRecord
from penumo_assets.resources.endpoints import EndpointError, Endpoints
from penumo_assets.resources.model_package import Approval, ModelPackages
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.serving.canary import make_canary
from penumo_assets.serving.deployment import Deployment, Log


def serve_champion(
    store: ObjectStore, packages: ModelPackages, endpoints: Endpoints, settings: EndpointConfig | None, log: Log
) -> tuple[EndpointRecord, bool]:
    """Bring the champion into service with ``settings``, or with those that the endpoint has; whether that took work.

    The variant that served before goes back into service without being approved or asked again.

    Raises
    ------
    EndpointError
        Naming what to change; what served before serves on.
    NoChampion, StorageError, ModelError
        If there is no champion, or its archive cannot be used.
    """
    service, champion, held = endpoints.open(), read_champion(store), EndpointRecord.find(store)
    settings = settings or _settings_of(held, champion.version)
    if held is not None and held.variant.settings.mode is not settings.mode:
        raise EndpointError(
            f"the champion is served in mode {held.variant.settings.mode.value}, and SageMaker changes no endpoint's "
            f"mode: take it down first (mode: off), then ask for {settings.mode.value}"
        )
    variant = service.variant(champion.version, _package(champion), settings)
    deployment = Deployment(
        store, service, settings.mode, log, lambda: read_champion(store).version == champion.version
    )
    if held is not None and deployment.serves(variant):
        return held, False
    if not deployment.was_accepted(variant) and (approval := packages.approval(variant.package)) != Approval.approved:
        raise EndpointError(
            f"version {champion.version} is {approval.value}: approve its model package in SageMaker's registry "
            f"({variant.package}), then materialize endpoint again"
        )
    return deployment.run(variant, lambda: make_canary(store, champion)), True


def take_down(store: ObjectStore, endpoints: Endpoints, log: Log) -> None:
    """Remove the endpoint and what was made for its variants."""
    if held := EndpointRecord.find(store):
        Deployment(store, endpoints.open(), held.variant.settings.mode, log, lambda: True).off()


def _settings_of(held: EndpointRecord | None, version: str) -> EndpointConfig:
    """Those that the version was served with, if it was, else the present ones."""
    if held is None:
        raise EndpointError("there is no endpoint yet: launch endpoint with a mode, such as realtime")
    previous = held.previous
    return previous.settings if previous and previous.version == version else held.variant.settings


def _package(champion: VersionRecord) -> str:
    if champion.package is None:
        raise EndpointError(
            f"version {champion.version} has no model package: set PENUMO_INFERENCE_IMAGE and materialize "
            "champion_model again"
        )
    return champion.package
