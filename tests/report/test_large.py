"""Ten thousand cells: size and time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from kit.report.files import Run, read_run
from kit.report.html import render
from tests.report.extremes import large_verdict
from tests.report.runs import write_run

LIMIT = 2_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("large") / "run"
    return read_run(write_run(folder, verdict=large_verdict(10_000)))


def test_size_and_time(large: Run, benchmark: Any) -> None:
    began = time.process_time()
    page = benchmark.pedantic(render, args=(large,), rounds=1)
    assert time.process_time() - began < 20
    assert len(page.encode()) < LIMIT
    assert page.count("<tbody") > 10_000
    assert "lines stand here without details, to keep this file small" in page


def test_size_when_everything_deviates_at_length(large: Run, tmp_path: Path) -> None:
    long = "x" * 100
    cells = [
        structs.replace(cell, id=f"{cell.id}/{long}"[:128], verdict="deviates", detail=long * 4)
        for cell in large.verdict.cells
    ]
    verdict = structs.replace(large.verdict, cells=cells)
    page = render(read_run(write_run(tmp_path / "run", verdict=verdict)))
    assert len(page.encode()) < LIMIT
    assert "were left out for the same reason" in page


def test_size_with_many_series(large: Run, tmp_path: Path) -> None:
    series = [
        structs.replace(one, id=f"{one.id}-{i}") for i in range(60) for one in large.results.series
    ]
    results = structs.replace(large.results, series=series)
    page = render(read_run(write_run(tmp_path / "run", verdict=large.verdict, results=results)))
    assert len(page.encode()) < LIMIT
    assert "further series in results.json" in page
