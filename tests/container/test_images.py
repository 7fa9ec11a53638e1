"""`requirements/images.py`: a digest is used once somebody resolved it, and never made up."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.container.conftest import ROOT, Box

DIGEST = "sha256:" + "ab" * 32
REFERENCE = "docker.io/library/python:3.11-slim-bookworm"


@pytest.fixture
def script(box: Box) -> Path:
    """A copy of the script and an unconfirmed record beside it."""
    path = box.folder / "images.py"
    shutil.copy(ROOT / "requirements" / "images.py", path)
    record(path, digest=None, status="unconfirmed")
    return path


def record(script: Path, **fields: Any) -> None:
    empty = {"resolved_with": None, "date": None}
    text = json.dumps({"reference": REFERENCE, **empty, **fields})
    script.with_name("images.json").write_text(text)


def call(box: Box, script: Path, what: str) -> subprocess.CompletedProcess[str]:
    return box.call(sys.executable, str(script), what)


def kept(script: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(script.with_name("images.json").read_text())
    return found


def test_an_unconfirmed_base_is_its_tag_and_says_so(box: Box, script: Path) -> None:
    done = call(box, script, "base")
    assert done.stdout == f"{REFERENCE}\n"
    assert "its digest is unconfirmed" in done.stderr


def test_a_confirmed_base_is_its_digest(box: Box, script: Path) -> None:
    record(script, digest=DIGEST, status="confirmed", date="2026-11-21")
    done = call(box, script, "base")
    assert done.stdout == f"docker.io/library/python@{DIGEST}\n"
    assert "as pinned on 2026-11-21" in done.stderr


def test_a_digest_that_nobody_confirmed_is_not_used(box: Box, script: Path) -> None:
    record(script, digest=DIGEST, status="unconfirmed")
    assert call(box, script, "base").stdout == f"{REFERENCE}\n"


@pytest.mark.parametrize(
    ("tool", "outputs"),
    [
        ("docker", {"buildx": DIGEST}),
        ("podman", {"pull": "x"}),
        ("buildah", {"pull": "x", "inspect": DIGEST}),
    ],
)
def test_every_tool_can_resolve(box: Box, script: Path, tool: str, outputs: dict[str, str]) -> None:
    box.add(tool, outputs=outputs, revision=DIGEST)
    done = call(box, script, "pin")
    assert done.returncode == 0, done.stderr
    found = kept(script)
    assert (found["digest"], found["status"]) == (DIGEST, "confirmed")
    assert found["resolved_with"] == tool
    assert REFERENCE in " ".join(box.calls[-1]["argv"])


def test_skopeo_gives_the_manifest_itself(box: Box, script: Path) -> None:
    box.add("skopeo", outputs={"inspect": "{}"})
    assert call(box, script, "pin").returncode == 0
    assert kept(script)["digest"] == "sha256:" + hashlib.sha256(b"{}\n").hexdigest()
    assert box.calls[0]["argv"] == ["inspect", "--raw", f"docker://{REFERENCE}"]


def test_nothing_is_recorded_where_the_registry_is_not_reached(box: Box, script: Path) -> None:
    box.add("docker")
    box.add("buildah", outputs={"pull": "x", "inspect": "sha256:short"})
    before = kept(script)
    done = call(box, script, "pin")
    assert done.returncode == 4
    assert kept(script) == before
    assert "docker: registry unreachable" in done.stderr
    assert "buildah: gave no digest" in done.stderr
    assert "podman: not installed" in done.stderr


def test_the_committed_record_is_whole() -> None:
    found = json.loads((ROOT / "requirements" / "images.json").read_text())
    assert found["reference"] in (ROOT / "Dockerfile").read_text()
    assert (found["status"] == "confirmed") == bool(found["digest"] and found["resolved_with"])
