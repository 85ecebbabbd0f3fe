"""What docs/data_contract.md tells a program that only knows the prefix of the tensors finds the current ones."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from penumo_assets.cohort.publish import ManifestHead, dump_manifest
from penumo_assets.jobs.manifest import ManifestRow, StageOutput
from penumo_assets_tests.docs.commands import CHECKOUT

SECTION = (CHECKOUT / "docs" / "data_contract.md").read_text(encoding="utf-8").split("## Tensors:")[1]
# `aws s3 cp` on a folder that stands for the bucket.
AWS = """#!/bin/sh
from="$ROOT/${3#s3://BUCKET/}"
if [ "$4" = - ]; then cat "$from"; else cp "$from" "$4"; fi
"""


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two current tensors, one of an earlier publication, one rejected film, and one whose name looks like a key."""
    rows = []
    for number in range(3):
        row = ManifestRow(image_id=f"i{number}", source=f"npz/{number}.png", source_etag="e", source_bytes=1)
        key = f"npz/ward-7/new/p{number}.npz"
        if number < 2:
            row.stages["raw"] = StageOutput(key=f"raw/ward-7/new/i{number}.png", sha256="s", fingerprint="f")
            row.stages["npz"] = StageOutput(key=key, sha256="s", fingerprint="f")
        else:
            row.reject("raw", "corrupt", "damaged")
        rows.append(row)
    for key in ("new/p0", "new/p1", "old/p0", "old/p2"):
        path = tmp_path / "root" / "npz" / "ward-7" / f"{key}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(key)
    (tmp_path / "root" / "manifests").mkdir()
    head = ManifestHead(schema="penumo/manifest/1", superseded=("npz/ward-7/old/p0.npz",))
    (tmp_path / "root" / "manifests" / "ward-7.jsonl").write_bytes(dump_manifest(head, rows))
    return tmp_path / "root"


def test_the_line_of_python_names_the_current_tensors(root: Path) -> None:
    names = {"root": root, "json": json}
    exec(block("python"), names)
    assert names["keys"] == ["npz/ward-7/new/p0.npz", "npz/ward-7/new/p1.npz"]


def test_the_line_of_the_aws_command_line_copies_the_current_tensors(root: Path, tmp_path: Path) -> None:
    programs, here = tmp_path / "bin", tmp_path / "here"
    programs.mkdir()
    here.mkdir()
    (programs / "aws").write_text(AWS)
    (programs / "aws").chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "ROOT": str(root)}
    subprocess.run(["bash", "-c", block("bash")], cwd=here, env=environment, check=True)
    assert {path.name: path.read_text() for path in here.iterdir()} == {"p0.npz": "new/p0", "p1.npz": "new/p1"}
