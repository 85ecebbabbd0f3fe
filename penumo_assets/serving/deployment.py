"""Which variant an endpoint serves, and the steps from one to the next.

A new variant is asked on an endpoint of its own, NAME-canary, while the old one has all the traffic; where there is no
endpoint yet, nobody asks it but us. Traffic moves only after the canary film was answered as it must be. Every step
looks first at what is there, so whoever was killed goes on where he stopped, and nothing is started twice.
"""

from collections.abc import Callable

from dagster import DagsterExecutionInterruptedError

from penumo_assets.configs.endpoint import Mode
from penumo_assets.records import EndpointRecord
from penumo_assets.resources.endpoints import EndpointError, EndpointService, State, Variant
from penumo_assets.resources.storage.object_store import ObjectStore
from penumo_assets.serving.canary import NO_FILM, Canary, laxity, objection

_INTERRUPTIONS = (DagsterExecutionInterruptedError, KeyboardInterrupt, SystemExit)
_ASKED = 3  # a container that has only just started may answer by 5xx
_KNOWN_AFTER = 10  # looks, until what was created is known
Log = Callable[[str], None]


def canary_name(endpoint: str) -> str:
    """The endpoint on which a variant is asked before it gets the other one's traffic."""
    return f"{endpoint}-canary"


class Deployment:
    """One endpoint and its record.

    Parameters
    ----------
    wanted : whether a variant is still to be served; asked directly before traffic moves.
    """

    def __init__(
        self, store: ObjectStore, service: EndpointService, mode: Mode, log: Log, wanted: Callable[[], bool]
    ) -> None:
        self.store, self.service, self.log, self._wanted = store, service, log, wanted
        self.endpoint = service.name(mode)
        self.held = EndpointRecord.find(store)

    def serves(self, variant: Variant) -> bool:
        """Whether the variant is in service and was accepted, and nothing is left to do. Changes nothing."""
        if self.held is None or self.held.variant.name != variant.name:
            return False
        if variant.settings.mode is Mode.batch:
            return True
        state = self.service.state(self.endpoint)
        return (
            state is not None
            and state.in_service
            and state.variant == variant.name
            and self.service.state(canary_name(self.endpoint)) is None
        )

    def was_accepted(self, variant: Variant) -> bool:
        """Whether the variant has served before, so that traffic may go back to it at once."""
        held = (self.held.variant, self.held.previous) if self.held else ()
        return any(known is not None and known.name == variant.name for known in held)

    def run(self, variant: Variant, make_canary: Callable[[], Canary]) -> EndpointRecord:
        """Bring the variant into service; the new record.

        Raises
        ------
        EndpointError
            If it cannot be, or the canary was not answered as it must be: what served before serves on, and what was
            made for the variant is removed.
        """
        self.service.prepare(variant)
        if variant.settings.mode is Mode.batch:
            if not self.was_accepted(variant):
                self._examine(variant, "", make_canary(), self._abandon)
            return self._record(variant)
        if not self.was_accepted(variant):
            self._try_out(variant, self._usable(self.endpoint), make_canary)
        self._move(variant)
        self._removed(canary_name(self.endpoint))
        return self._record(variant)

    def off(self) -> None:
        """Remove the endpoint, its canary, and what was made for its variants."""
        held = self.held
        if held is None or held.variant.settings.mode is not Mode.batch:
            for endpoint in (canary_name(self.endpoint), self.endpoint):
                self._settled(endpoint)
                self._removed(endpoint)
        for variant in (held.variant, held.previous) if held else ():
            if variant is not None:
                self.service.forget(variant)
        self.store.delete([EndpointRecord.key()])

    def _try_out(self, variant: Variant, state: State | None, make_canary: Callable[[], Canary]) -> None:
        """Ask the variant where it takes nobody's traffic; if it has some, it was moved by a run that was killed."""
        alone = state is None or state.variant == variant.name
        stage = self.endpoint if alone else canary_name(self.endpoint)
        undo = self._go_back if alone and state and self.held else self._abandon
        canary = make_canary()
        try:
            self._in_service(stage, variant)
            self._examine(variant, stage, canary, undo)
        except _INTERRUPTIONS:
            if undo == self._abandon:
                self._cancel(stage)
            raise
        except _NotInService as failed:
            undo(variant, stage)
            raise EndpointError(f"version {variant.version} does not start: {failed}") from failed

    def _examine(self, variant: Variant, stage: str, canary: Canary, undo: Callable[[Variant, str], None]) -> None:
        self.log(f"Asking version {variant.version} for the canary film")
        for _ in range(1 if variant.settings.mode is Mode.batch else _ASKED):  # a transform job is paid for
            status, text = self.service.ask(stage, variant, canary.body, canary.content_type)
            if status < 500:
                break
            self.service.pause()
        problem = objection(canary, status, text)
        if problem is None and variant.settings.mode is not Mode.batch:  # where a refused film fails the whole job
            problem = laxity(*self.service.ask(stage, variant, NO_FILM, "application/dicom"))
        if problem is not None:
            undo(variant, stage)
            kept = f"version {self.held.variant.version} serves on" if self.held else "nothing serves"
            raise EndpointError(f"version {variant.version} gets no traffic, {kept}: {problem}")

    def _move(self, variant: Variant) -> None:
        state = self._usable(self.endpoint)
        if state is not None and state.variant == variant.name:
            return
        if not self._wanted():
            self._abandon(variant, canary_name(self.endpoint))
            raise EndpointError("the champion has changed meanwhile: materialize endpoint again", transient=True)
        try:
            self._in_service(self.endpoint, variant)
        except _NotInService as failed:
            self._abandon(variant, canary_name(self.endpoint))
            raise EndpointError(f"the traffic does not move to version {variant.version}: {failed}") from failed

    def _in_service(self, endpoint: str, variant: Variant) -> None:
        """Point an endpoint at the variant, unless it is already, and wait until it serves."""
        state = self._usable(endpoint)
        if state is None or state.variant != variant.name:
            self.log(f"Pointing endpoint {endpoint} at version {variant.version}: {self.service.address(endpoint)}")
            self.service.point(endpoint, variant)
            for _ in range(_KNOWN_AFTER):
                if state := self._settled(endpoint):
                    break
                self.service.pause()
        if state is None or not state.in_service or state.variant != variant.name:
            reason = f"{state.status}: {state.reason or 'no reason given'}" if state else "it is gone"
            raise _NotInService(f"endpoint {endpoint} is {reason} ({self.service.address(endpoint)})")

    def _settled(self, endpoint: str) -> State | None:
        """The endpoint's state once nothing is under way."""
        shown = ""
        while True:
            state = self.service.state(endpoint)
            if state is None or state.in_service or state.failed:
                return state
            if state.status != shown:
                shown = state.status
                self.log(f"Endpoint {endpoint}: {shown}")
            self.service.pause()

    def _usable(self, endpoint: str) -> State | None:
        """The same without an endpoint that has failed, with which nothing can be done but removing it."""
        state = self._settled(endpoint)
        if state is not None and state.failed:
            self.log(f"Removing endpoint {endpoint}: {state.status}: {state.reason}")
            self._removed(endpoint)
            return None
        return state

    def _removed(self, endpoint: str) -> None:
        if self.service.state(endpoint) is not None:
            self.service.take_down(endpoint)
            while self.service.state(endpoint) is not None:
                self.service.pause()

    def _cancel(self, stage: str) -> None:
        try:
            self.service.take_down(stage)
        except EndpointError as refused:
            self.log(f"Endpoint {stage} is still there: launch endpoint again, or remove it by hand ({refused})")

    def _abandon(self, variant: Variant, stage: str) -> None:
        if stage:
            self._removed(stage)
        if not self.was_accepted(variant):
            self.service.forget(variant)

    def _go_back(self, variant: Variant, stage: str) -> None:
        assert self.held is not None
        self._in_service(stage, self.held.variant)
        self._abandon(variant, canary_name(stage))

    def _record(self, variant: Variant) -> EndpointRecord:
        """Keep what serves, and what served before it; whatever is older is removed."""
        held = self.held
        if held is None:
            record = EndpointRecord(variant=variant)
        elif held.variant.name == variant.name:
            record = EndpointRecord(variant=variant, previous=held.previous)
        else:
            record = EndpointRecord(variant=variant, previous=held.variant)
            if held.previous is not None and held.previous.name != variant.name:
                self.service.forget(held.previous)
        record.write(self.store)
        return record


class _NotInService(Exception):
    """An endpoint did not come to serve a variant."""
