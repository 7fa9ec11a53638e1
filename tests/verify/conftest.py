"""A small repository with one experiment, and a run of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import run_files

EXPECTATION = """\
schema_version: 1
experiment: made
profile: mini
version: 1-A
record: ../reference/made.mini.jsonl
cells:
  # attack success, as the document prints it
  - id: t1/none
    title: no defence
    status: reported
    value: "50.0"
    unit: percent
    n: 208
    direction: lower_is_better
    place: doc, table 1
    tolerance: {kind: binomial, margin: "20", source: convention, reason: twenty points}
  - id: t1/defended
    status: reported
    value: "4.8"
    unit: percent
    n: 208
    direction: lower_is_better
    place: doc, table 1
    tolerance: {kind: paired, margin: "5", source: convention, reason: five points}
    labels: published.jsonl#defended
  - id: t2/loss
    status: reference
    unit: loss
    place: reference runs
    tolerance: {kind: seeds, margin: "0.2", source: reference, reason: spread of three seeds}
claims:
  - id: defence-helps
    kind: order
    sentence: The defence lowers attack success.
    place: doc, section 1
    primary: true
    cells: [t1/defended, t1/none]
  - id: nearly-zero
    kind: threshold
    sentence: Attack success falls below 10 %.
    place: doc, section 1
    primary: true
    cells: [t1/defended]
    value: "10"
    side: at_most
"""


RECORD = """{"run": "reference-1"}
{"id": "t2/loss", "unit": "loss", "value": 1.5, "seeds": [{"seed": "r0", "value": 1.4},
 {"seed": "r1", "value": 1.5}, {"seed": "r2", "value": 1.6}]}
""".replace(",\n", ",")


def label_line(id: str, ones: int, n: int = 208, first: int = 0) -> str:
    """A line of labels with the ones at the front (from ``first`` on)."""
    bits = [int(first <= i < first + ones) for i in range(n)]
    return json.dumps({"id": id, "items": [f"i{i}" for i in range(n)], "labels": bits}) + "\n"


def cells_of(none: int = 110, defended: int = 9) -> list[dict[str, Any]]:
    """The table's cells."""
    losses = [1.45, 1.52, 1.55]
    return [
        {"id": "t1/none", "unit": "percent", "value": 100 * none / 208, "k": none, "n": 208},
        {
            "id": "t1/defended",
            "unit": "fraction",
            "value": defended / 208,
            "k": defended,
            "n": 208,
            "labels": "labels.jsonl#defended",
        },
        {
            "id": "t2/loss",
            "unit": "loss",
            "value": sum(losses) / 3,
            "seeds": [{"seed": str(i), "value": v} for i, v in enumerate(losses)],
        },
    ]


def results_of(cells: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A whole table."""
    head = {"schema_version": 1, "experiment": "made", "version": "1-A", "profile": "mini"}
    return head | {"cells": cells} | fields


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository, as working directory and ``KIT_ROOT``."""
    root = tmp_path / "repo"
    (root / "manifests" / "family").mkdir(parents=True)
    (root / "expected_results" / "family").mkdir(parents=True)
    (root / "manifests" / "pins.yaml").write_text("schema_version: 1\npins: []\n")
    (root / "manifests" / "family" / "made.yaml").write_text("id: made\n")
    (root / "expected_results" / "family" / "made.mini.yaml").write_text(EXPECTATION)
    (root / "expected_results" / "reference").mkdir()
    (root / "expected_results" / "reference" / "made.mini.jsonl").write_text(RECORD)
    published = root / "expected_results" / "family" / "published.jsonl"
    published.write_text(label_line("defended", 10))
    monkeypatch.chdir(root)
    monkeypatch.setenv("KIT_ROOT", str(root))
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    return root


@pytest.fixture
def run_dir(repo: Path) -> Path:
    """A finished run that reproduces the document."""
    path = repo / "runs" / "made-mini-1"
    path.mkdir(parents=True)
    write_run(path, cells_of())
    return path


def write_run(
    path: Path, cells: list[dict[str, Any]], changed: dict[str, Any] | None = None, **fields: Any
) -> None:
    """Fill a run directory; ``changed`` are fields of plan and record, ``fields`` of the table."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "results.json").write_text(json.dumps(results_of(cells, **fields)))
    k = next((c.get("k", 0) for c in cells if c["id"] == "t1/defended"), 0)
    (path / "labels.jsonl").write_text(label_line("defended", k))
    hardware = {"hostname": "node7", "cpus": 2}
    run_files.whole(path, hardware=hardware, **changed or {})
