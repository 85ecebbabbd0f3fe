"""Dagster's pages have no login: what serves them listens on loopback unless somebody says otherwise."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from mlflow.cli import server

from penumo_assets.cli.main import main as penumo
from penumo_assets_tests.browser.site import CHECKOUT, Site, start
from penumo_assets_tests.docs.commands import PAGES, commands

pytestmark = pytest.mark.trust


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = start(tmp_path / "root")
    yield site
    site.stop()


@pytest.mark.slow
def test_everything_that_make_dev_starts_listens_on_loopback_alone(site: Site) -> None:
    processes = [psutil.Process(site.process.pid), *psutil.Process(site.process.pid).children(recursive=True)]
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert int(site.url.rpartition(":")[2]) in {port for _, port in listening}
    assert [address for address, _ in listening if not ip_address(address).is_loopback] == []


def test_make_dev_names_no_other_address() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    assert "--host" not in makefile
    source = (CHECKOUT / "penumo_assets" / "cli" / "servers.py").read_text(encoding="utf-8")
    assert source.count('"dg", "dev"') == 1
    assert re.findall(r'"--host", (\S+?),', source) == ['"127.0.0.1"']


def test_reports_are_served_on_loopback_by_default() -> None:
    (option,) = [parameter for parameter in penumo.commands["reports"].params if parameter.name == "host"]
    assert ip_address(option.default).is_loopback


def test_no_page_tells_anybody_to_serve_to_the_network() -> None:
    for page in PAGES:
        for command in commands(page):
            assert "0.0.0.0" not in command.words, command


def test_mlflows_own_server_listens_on_loopback_by_default() -> None:
    (host,) = [parameter for parameter in server.params if parameter.name == "host"]
    assert ip_address(host.default).is_loopback
