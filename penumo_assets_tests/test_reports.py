"""The route from an asset's page to its report: reports, and nothing else of the root."""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from penumo_assets.cli.reports import report_server
from penumo_assets.resources.storage.file_store import FileStore

REPORT = "reports/resnet34/penumo-evaluate-resnet34-0123456789ab-1/report.html"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    store = FileStore(tmp_path)
    store.write(REPORT, b"<!DOCTYPE html><p>a report")
    store.write(REPORT.replace("report.html", "predictions.parquet"), b"rows")
    store.write("landing/ward-7/a.png", b"a film")
    with report_server(store, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_report_is_shown_and_may_load_nothing(address: str) -> None:
    with urllib.request.urlopen(f"{address}/{REPORT}", timeout=10) as answer:
        assert answer.read() == b"<!DOCTYPE html><p>a report"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "landing/ward-7/a.png",
        REPORT.replace("report.html", "predictions.parquet"),
        REPORT.replace("resnet34/", "resnet50/"),
        "reports/../landing/ward-7/a.png",
        "reports/%2e%2e/landing/report.html",
        "reports/resnet34//report.html",
        "",
    ],
)
def test_nothing_else_of_the_root_is_there(address: str, path: str) -> None:
    assert status(f"{address}/{path}") == 404


def test_another_sites_name_that_leads_here_is_refused(address: str) -> None:
    assert status(f"{address}/{REPORT}", Host="evil.example.org") == 403
    assert status(f"{address}/{REPORT}", Host="localhost:3001") == 200
