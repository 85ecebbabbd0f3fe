"""Serving a model package behind one address: what an endpoint's service can do, whoever runs it.

`serving/deployment.py` decides what is done, and in which order; these are its hands. The embedded profile has none.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

from dagster import ConfigurableResource
from pydantic import BaseModel, ConfigDict, Field

from penumo_assets.configs.endpoint import EndpointConfig, Mode


class EndpointError(RuntimeError):
    """What could not be done, and what to change; ``transient`` if the same may succeed later."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class Variant(BaseModel):
    """A version as it is served: its model package, the settings, and the name that follows from all of it."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    package: str
    settings: EndpointConfig


@dataclass(frozen=True)
class State:
    """How an endpoint stands, and which variant (by its name) it is pointed at; ``reason`` if something failed."""

    status: str
    variant: str
    reason: str = ""

    @property
    def in_service(self) -> bool:
        return self.status in {"InService", "UpdateRollbackFailed"}  # the latter serves, in part

    @property
    def failed(self) -> bool:
        return self.status in {"Failed", "OutOfService"}


class EndpointService(Protocol):
    """Variants, and endpoints that serve them. Every method may be repeated, and raises EndpointError."""

    def name(self, mode: Mode) -> str:
        """Name of the installation's endpoint."""

    def variant(self, version: str, package: str, settings: EndpointConfig) -> Variant:
        """What would serve a version: the same arguments make the same name, others another."""

    def state(self, endpoint: str) -> State | None:
        """None if there is no endpoint of this name."""

    def prepare(self, variant: Variant) -> None:
        """Make what an endpoint can be pointed at; it costs nothing until then."""

    def point(self, endpoint: str, variant: Variant) -> None:
        """Begin to give a variant the endpoint's traffic, and make the endpoint if there is none."""

    def ask(self, endpoint: str, variant: Variant, body: bytes, content_type: str) -> tuple[int, str]:
        """HTTP status and text of the answer to one request."""

    def pause(self) -> None:
        """Wait between two looks at a state."""

    def take_down(self, endpoint: str) -> None:
        """Begin to remove an endpoint, if there is one."""

    def forget(self, variant: Variant) -> None:
        """Remove what `prepare` has made."""

    def address(self, endpoint: str) -> str:
        """Its page in a browser."""


class Endpoints(ConfigurableResource):
    """Where champions are served."""

    @abstractmethod
    def open(self) -> EndpointService:
        """Raises EndpointError where nothing can be served, or a setting is missing."""


class NoEndpoints(Endpoints):
    """The embedded profile."""

    instead: str = Field(
        default="python -m penumo_assets.jobs.infer.serve --model ARCHIVE", description="What serves on this machine."
    )

    def open(self) -> EndpointService:
        raise EndpointError(
            f"an endpoint needs SageMaker (PENUMO_PROFILE=aws). On this machine `{self.instead}` answers the same two "
            "routes"
        )
