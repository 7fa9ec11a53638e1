"""The sentence about the container image."""

from __future__ import annotations

import json
from pathlib import Path

from kit.report.image_test import FILE, NEVER, block

FOUND = {
    "date": "2026-11-21",
    "engine": "buildah version 1.28.2 (image-spec 1.1.0)",
    "base": "localhost/base:1",
    "user": 4321,
    "python": "3.11.2",
    "torch": "2.13.0+cpu",
    "cpu": "Some | CPU",
    "cores": 2,
    "run_seconds": 283.8,
    "steps": 71,
    "verdict": "PARTIALLY",
}


def test_a_result_is_told_as_it_is(tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text(
        json.dumps({"podman": FOUND | {"engine": "podman version 4.3.1"}, "buildah": FOUND})
    )
    text = block(tmp_path)
    assert "2026-11-21, buildah version 1.28.2, base `localhost/base:1`" in text
    assert "**PARTIALLY**, 71 steps, 283.8 s on 2 cores" in text
    assert "image-spec" not in text
    assert [line[:2] for line in text.splitlines()[2:]] == ["- ", "- "]
    assert "podman version 4.3.1" in text.splitlines()[3]


def test_an_image_that_nobody_tested_is_not_claimed(tmp_path: Path) -> None:
    assert block(tmp_path) == NEVER
