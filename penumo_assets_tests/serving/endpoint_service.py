"""An endpoint service in memory: what was asked of it, in order, and a power cut at any step."""

import json
from collections.abc import Callable

from penumo_assets.configs.endpoint import EndpointConfig, Mode
from penumo_assets.resources.endpoints import State, Variant
from penumo_assets.serving.canary import Canary

FILM = Canary(b"film", "application/dicom", {"model_version": "?", "probabilities": {"normal": 0.2, "pneumonia": 0.8}})


class PowerCut(BaseException):
    """What no code can catch."""


class MemoryService:
    """Endpoints that come into service at the second look.

    Attributes
    ----------
    calls : every call that changes something, as text.
    cut_after : how many of them are carried out before the power is cut; None: all.
    answers : status and text by version, where it is not the right answer.
    broken : versions whose container does not start.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.cut_after: int | None = None
        self.answers: dict[str, Callable[[], tuple[int, str]]] = {}
        self.broken: set[str] = set()
        self.variants: dict[str, Variant] = {}
        self.endpoints: dict[str, str] = {}  # by name, the variant that it has
        self._moving: dict[str, str | None] = {}
        self._failed: dict[str, str] = {}

    def name(self, mode: Mode) -> str:
        return f"penumo-{mode.value}"

    def variant(self, version: str, package: str, settings: EndpointConfig) -> Variant:
        return Variant(name=f"v{version}-{settings.instance_type}", version=version, package=package, settings=settings)

    def state(self, endpoint: str) -> State | None:
        if endpoint in self._moving:
            return State("Updating" if endpoint in self.endpoints else "Creating", self.endpoints.get(endpoint, ""))
        if endpoint in self._failed and endpoint not in self.endpoints:
            return State("Failed", self._failed[endpoint], "the ping health check did not pass")
        found = self.endpoints.get(endpoint)
        return State("InService", found, "as before" if endpoint in self._failed else "") if found else None

    def prepare(self, variant: Variant) -> None:
        if variant.name not in self.variants:
            self._change(f"prepare {variant.name}", lambda: self.variants.update({variant.name: variant}))

    def point(self, endpoint: str, variant: Variant) -> None:
        assert variant.name in self.variants
        assert endpoint not in self._moving
        verb = "update" if endpoint in self.endpoints else "create"
        self._change(f"{verb} {endpoint} {variant.name}", lambda: self._moving.update({endpoint: variant.name}))

    def ask(self, endpoint: str, variant: Variant, body: bytes, content_type: str) -> tuple[int, str]:
        assert variant.settings.mode is Mode.batch or self.endpoints[endpoint] == variant.name
        if body != FILM.body:
            return 400, "not_an_image"
        right = {**FILM.answer, "model_version": variant.version}
        return self.answers.get(variant.version, lambda: (200, json.dumps(right)))()

    def pause(self) -> None:
        for endpoint, name in list(self._moving.items()):
            del self._moving[endpoint]
            if name is None:
                self.endpoints.pop(endpoint, None)
                self._failed.pop(endpoint, None)
            elif self.variants[name].version in self.broken:
                self._failed[endpoint] = name
            else:
                self.endpoints[endpoint] = name

    def take_down(self, endpoint: str) -> None:
        if endpoint in self.endpoints or endpoint in self._failed:
            self._change(f"delete {endpoint}", lambda: self._moving.update({endpoint: None}))

    def forget(self, variant: Variant) -> None:
        if variant.name in self.variants:
            assert variant.name not in self.endpoints.values(), "it serves"
            self._change(f"forget {variant.name}", lambda: self.variants.pop(variant.name))

    def address(self, endpoint: str) -> str:
        return f"https://console/{endpoint}"

    def _change(self, call: str, carry_out: Callable[[], object]) -> None:
        if self.cut_after is not None and len(self.calls) >= self.cut_after:
            raise PowerCut
        self.calls.append(call)
        carry_out()
