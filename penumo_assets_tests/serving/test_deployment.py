"""What an endpoint is led through: no traffic before the canary was answered, nothing twice, and always a way back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from penumo_assets.configs.endpoint import EndpointConfig, Mode
from penumo_assets.records import EndpointRecord
from penumo_assets.resources.endpoints import EndpointError, Variant
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets.serving.canary import objection
from penumo_assets.serving.deployment import Deployment
from penumo_assets_tests.serving.endpoint_service import FILM, MemoryService, PowerCut

MAIN, CANARY = "penumo-realtime", "penumo-realtime-canary"
REALTIME = EndpointConfig.parse({"mode": "realtime", "instance_type": "ml.m5.large"})


class Bench:
    """A store, a service, and deployments of versions."""

    def __init__(self, folder: Path) -> None:
        self.store, self.service, self.lines = FileStore(folder), MemoryService(), list[str]()

    def variant(self, version: int) -> Variant:
        return self.service.variant(str(version), f"package/{version}", REALTIME)

    def deploy(self, version: int, wanted: Callable[[], bool] = lambda: True) -> list[str]:
        """The calls that it takes."""
        before, variant = len(self.service.calls), self.variant(version)
        deployment = Deployment(self.store, self.service, Mode.realtime, self.lines.append, wanted)
        if not deployment.serves(variant):
            deployment.run(variant, lambda: self.canary(version))
        return self.service.calls[before:]

    def canary(self, version: int):
        return replace(FILM, answer={**FILM.answer, "model_version": str(version)})

    @property
    def record(self) -> EndpointRecord | None:
        return EndpointRecord.find(self.store)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def served(bench: Bench) -> Bench:
    bench.deploy(1)
    return bench


def test_the_first_variant_is_asked_where_nobody_else_asks(bench: Bench) -> None:
    assert bench.deploy(1) == ["prepare v1-ml.m5.large", f"create {MAIN} v1-ml.m5.large"]
    assert bench.record is not None
    assert (bench.record.variant.version, bench.record.previous) == ("1", None)


def test_an_unchanged_variant_takes_no_call(served: Bench) -> None:
    assert served.deploy(1) == []


def test_traffic_moves_after_the_canary_and_the_variant_before_is_kept(served: Bench) -> None:
    seen = []
    served.service.answers["2"] = lambda: (seen.append(served.service.endpoints[MAIN]), (200, ""))[1]
    with pytest.raises(EndpointError, match="version 2 gets no traffic, version 1 serves on"):
        served.deploy(2)
    assert seen == ["v1-ml.m5.large"]
    del served.service.answers["2"]
    assert served.deploy(2)[1:] == [
        f"create {CANARY} v2-ml.m5.large",
        f"update {MAIN} v2-ml.m5.large",
        f"delete {CANARY}",
    ]
    assert {"v1-ml.m5.large", "v2-ml.m5.large"} == set(served.service.variants)


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (500, "Traceback", "answered by 500: Traceback"),
        (200, "<html>", "none of ours"),
        (200, '{"model_version": "1", "probabilities": {"normal": 0.2, "pneumonia": 0.8}}', "version 1 answered"),
        (200, '{"model_version": "2", "probabilities": {"normal": 0.3, "pneumonia": 0.7}}', "differ by 0.100"),
        (200, '{"model_version": "2", "probabilities": {"normal": NaN, "pneumonia": NaN}}', "differ by nan"),
    ],
)
def test_a_wrong_answer_leaves_the_old_variant_and_nothing_of_the_new_one(
    served: Bench, status: int, text: str, reason: str
) -> None:
    served.service.answers["2"] = lambda: (status, text)
    with pytest.raises(EndpointError, match=reason):
        served.deploy(2)
    assert served.service.endpoints == {MAIN: "v1-ml.m5.large"}
    assert set(served.service.variants) == {"v1-ml.m5.large"}
    assert served.record is not None
    assert served.record.variant.version == "1"
    assert f"update {MAIN} v2-ml.m5.large" not in served.service.calls


def test_a_container_that_does_not_start_is_removed_with_its_reason(served: Bench) -> None:
    served.service.broken.add("2")
    with pytest.raises(EndpointError, match=r"version 2 does not start: .*ping health check"):
        served.deploy(2)
    assert served.service.endpoints == {MAIN: "v1-ml.m5.large"}
    assert set(served.service.variants) == {"v1-ml.m5.large"}


def test_a_first_variant_that_does_not_start_leaves_nothing(bench: Bench) -> None:
    bench.service.broken.add("1")
    with pytest.raises(EndpointError, match="does not start"):
        bench.deploy(1)
    assert (bench.service.endpoints, bench.service.variants, bench.record) == ({}, {}, None)
    assert bench.service.state(MAIN) is None


def test_the_way_back_takes_one_call_and_no_canary(served: Bench) -> None:
    served.deploy(2)
    served.service.answers["1"] = lambda: (500, "must not be asked")
    assert served.deploy(1) == [f"update {MAIN} v1-ml.m5.large"]
    assert served.record is not None
    assert (served.record.variant.version, served.record.previous.version) == ("1", "2")
    assert served.deploy(2) == [f"update {MAIN} v2-ml.m5.large"]


def test_of_what_served_one_before_is_kept(served: Bench) -> None:
    served.deploy(2)
    served.deploy(3)
    assert set(served.service.variants) == {"v2-ml.m5.large", "v3-ml.m5.large"}


@pytest.mark.parametrize("cut_after", range(5))
@pytest.mark.parametrize("looks", [0, 1])
def test_whoever_is_killed_between_two_steps_goes_on_without_a_second_endpoint(
    served: Bench, cut_after: int, looks: int
) -> None:
    served.service.cut_after = len(served.service.calls) + cut_after
    try:
        served.deploy(2)
    except PowerCut:
        for _ in range(looks):  # what was under way may or may not have ended meanwhile
            served.service.pause()
    served.service.cut_after = None
    served.deploy(2)
    calls = served.service.calls
    assert served.service.endpoints == {MAIN: "v2-ml.m5.large"}
    assert calls.count(f"create {CANARY} v2-ml.m5.large") == 1
    assert calls.count(f"update {MAIN} v2-ml.m5.large") == 1
    assert served.record is not None
    assert (served.record.variant.version, served.record.previous.version) == ("2", "1")
    assert served.deploy(2) == []


def test_a_killed_canary_of_another_version_is_used_and_removed(served: Bench) -> None:
    served.service.cut_after = len(served.service.calls) + 2
    with pytest.raises(PowerCut):
        served.deploy(2)
    served.service.pause()
    served.service.cut_after = None
    assert f"update {CANARY} v3-ml.m5.large" in served.deploy(3)
    assert served.service.endpoints == {MAIN: "v3-ml.m5.large"}


def test_a_killed_canary_is_removed_where_the_old_version_is_wanted_again(served: Bench) -> None:
    served.service.cut_after = len(served.service.calls) + 2
    with pytest.raises(PowerCut):
        served.deploy(2)
    served.service.cut_after = None
    assert served.deploy(1) == [f"delete {CANARY}"]


def test_a_variant_that_got_its_traffic_before_the_power_cut_is_asked_and_may_have_to_go_back(served: Bench) -> None:
    served.service.cut_after = len(served.service.calls) + 3
    with pytest.raises(PowerCut):
        served.deploy(2)
    served.service.cut_after = None
    served.service.pause()
    assert served.service.endpoints[MAIN] == "v2-ml.m5.large"
    served.service.answers["2"] = lambda: (500, "no")
    with pytest.raises(EndpointError, match="version 1 serves on"):
        served.deploy(2)
    assert served.service.endpoints[MAIN] == "v1-ml.m5.large"


def test_a_champion_that_changes_meanwhile_gets_no_traffic(served: Bench) -> None:
    with pytest.raises(EndpointError, match="the champion has changed meanwhile"):
        served.deploy(2, wanted=lambda: False)
    assert served.service.endpoints == {MAIN: "v1-ml.m5.large"}
    assert set(served.service.variants) == {"v1-ml.m5.large"}


def test_an_endpoint_that_somebody_removed_is_made_again(served: Bench) -> None:
    del served.service.endpoints[MAIN]
    assert served.deploy(1) == [f"create {MAIN} v1-ml.m5.large"]


def test_off_removes_everything(served: Bench) -> None:
    served.deploy(2)
    Deployment(served.store, served.service, Mode.realtime, served.lines.append, lambda: True).off()
    assert (served.service.endpoints, served.service.variants, served.record) == ({}, {}, None)


def test_the_canary_agrees_with_another_machine_s_rounding() -> None:
    text = '{"model_version": "?", "probabilities": {"normal": 0.2004, "pneumonia": 0.7996}}'
    assert objection(FILM, 200, text) is None


@pytest.mark.parametrize(
    ("mode", "megabytes", "said"),
    [
        ("serverless", 3.9, None),
        ("serverless", 7.6, "choose mode realtime (25 MB) or batch (100 MB) or async (1024 MB)"),
        ("realtime", 25.1, "choose mode batch (100 MB) or async (1024 MB)"),
        ("batch", 101, "choose mode async (1024 MB)"),
        ("async", 1025, "no mode takes them"),
        ("current", 5000, None),
    ],
)
def test_films_that_are_too_large_for_a_mode_are_told_where_to_go(
    mode: str, megabytes: float, said: str | None
) -> None:
    problem = EndpointConfig.parse({"mode": mode}).refusal(int(megabytes * 2**20))
    assert problem is None if said is None else said in (problem or "")
    if mode != "current":
        assert EndpointConfig.parse({"mode": mode, "largest_film_mb": 2}).refusal(int(megabytes * 2**20)) is None


def test_settings_without_a_mode_are_not_ignored_in_silence() -> None:
    problem = EndpointConfig.parse({"instance_count": 2}).refusal(0)
    assert problem == "instance_count without a mode would change nothing: name the mode too"
