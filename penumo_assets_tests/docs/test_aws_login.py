"""docs/aws/compose*.yaml: nothing without a login is published, and the login's settings leave no way around it."""

import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import yaml
from dagster._core.instance_for_test import instance_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.test.utils import execute_dagster_graphql

from penumo_assets.jobs.manifest import STAGE_ASSETS

FOLDER = Path(__file__).parents[2] / "docs" / "aws"
PAGE = (FOLDER.parent / "deploy_aws.md").read_text(encoding="utf-8")
PRIVATE = ("127.0.0.1", "${PENUMO_MLFLOW_ADDRESS:-127.0.0.1}")
pytestmark = pytest.mark.trust


def services(name: str) -> dict[str, dict[str, Any]]:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))["services"]


BASE, LOGIN = services("compose.yaml"), services("compose.login.yaml")
PROXIES = {name: service for name, service in LOGIN.items() if "oauth2-proxy" in service["image"]}


def published(service: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Address, port of the host and port of the container of each port that is published; any address is ``""``."""
    found = []
    for text in service.get("ports", ()):
        address, host, container = re.fullmatch(r"(?:(.+):)?(\d+):(\d+)", text).groups()  # type: ignore[union-attr]
        found.append((address or "", host, container))
    return found


def test_without_the_login_every_service_listens_on_loopback_or_on_an_address_that_was_named() -> None:
    ports = {name: published(service) for name, service in BASE.items()}
    assert ports["webserver"] == [("127.0.0.1", "3000", "3000")]
    assert ports["mlflow"] == [(PRIVATE[1], "5000", "5000")]
    assert ports["code"] == ports["daemon"] == []


def test_only_the_login_is_published_to_the_network() -> None:
    assert not BASE.keys() & LOGIN.keys()
    everywhere = {name for name, service in LOGIN.items() for address, *_ in published(service) if not address}
    assert everywhere == PROXIES.keys() == {"operators", "viewers"}
    assert published(LOGIN["viewer"]) == []


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_speaks_tls_asks_for_a_group_and_lets_nothing_past(name: str) -> None:
    settings = PROXIES[name]["environment"]
    ((_, _, port),) = published(PROXIES[name])
    assert settings["OAUTH2_PROXY_HTTPS_ADDRESS"].endswith(f":{port}")
    assert {"OAUTH2_PROXY_TLS_CERT_FILE", "OAUTH2_PROXY_TLS_KEY_FILE", "OAUTH2_PROXY_COOKIE_SECRET"} <= settings.keys()
    assert re.fullmatch(r"\$\{LOGIN_\w+:\?\}", settings["OAUTH2_PROXY_ALLOWED_GROUPS"]), "empty would let everybody in"
    assert settings["OAUTH2_PROXY_COOKIE_SECURE"] == "true"
    assert settings["OAUTH2_PROXY_INSECURE_OIDC_SKIP_NONCE"] == "false"
    ways_around = ("SKIP_AUTH", "TRUSTED_IP", "API_ROUTE", "REVERSE_PROXY", "SKIP_JWT", "INSECURE_OIDC_ALLOW")
    assert [key for key in settings if any(way in key.removeprefix("OAUTH2_PROXY_") for way in ways_around)] == []


def test_a_session_of_one_proxy_is_none_of_the_other() -> None:
    names = {service["environment"]["OAUTH2_PROXY_COOKIE_NAME"] for service in PROXIES.values()}
    assert len(names) == len(PROXIES)
    assert all(name.startswith("__Host-") for name in names)


@pytest.mark.parametrize("name", PROXIES)
def test_the_proxy_is_of_a_version_without_its_known_holes(name: str) -> None:
    version = tuple(int(part) for part in PROXIES[name]["image"].rpartition(":v")[2].split("."))
    assert version >= (7, 15, 2)


def test_viewers_reach_a_read_only_web_server_and_operators_the_other() -> None:
    both = BASE | LOGIN
    upstreams = {name: urlparse(item["environment"]["OAUTH2_PROXY_UPSTREAMS"]) for name, item in PROXIES.items()}
    assert {name: url.hostname for name, url in upstreams.items()} == {"operators": "webserver", "viewers": "viewer"}
    assert all(url.hostname in both and url.port == 3000 for url in upstreams.values())
    words = LOGIN["viewer"]["command"].split()
    assert words[0] == "dagster-webserver"
    assert "--read-only" in words
    assert (Path(sys.executable).parent / words[0]).exists()


def test_no_container_but_that_of_the_runs_holds_the_key_of_the_patients() -> None:
    orchestrators = {name: item for name, item in (BASE | LOGIN).items() if "env_file" in item}
    with_key = [
        name for name, item in orchestrators.items() if item.get("environment", {}).get("PENUMO_DEID_KEY") != ""
    ]
    assert with_key == ["code"]


def test_every_setting_that_is_needed_is_on_the_page() -> None:
    text = (FOLDER / "compose.login.yaml").read_text(encoding="utf-8")
    needed = set(re.findall(r"\$\{(\w+):\?\}", text))
    assert needed == set(re.findall(r"^(LOGIN_\w+)=", PAGE, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("read_only", [True, False])
def test_a_read_only_web_server_launches_nothing(read_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENUMO_ROOT", "nowhere")
    launch = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
        __typename } }"""
    params = {"assetSelection": [{"path": [name]} for name in STAGE_ASSETS], "partitionNames": ["ward-7"]}
    target = ModuleTarget("penumo_assets.definitions", None, working_directory=None, location_name="penumo_assets")
    with (
        instance_for_test() as instance,
        WorkspaceProcessContext(instance, target, version="", read_only=read_only) as workspace,
    ):
        instance.add_dynamic_partitions("cohort", ["ward-7"])
        answer = execute_dagster_graphql(workspace.create_request_context(), launch, {"params": params})
        refused = answer.data["launchPartitionBackfill"]["__typename"] == "UnauthorizedError"
        assert refused is read_only
        assert len(instance.get_backfills()) == (0 if read_only else 1)
