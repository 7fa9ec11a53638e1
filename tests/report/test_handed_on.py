"""What formats of other people are given: dates, order, and a dash for nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.report import markdown
from kit.report.claims import claim_rows
from kit.report.crate import export_crate
from kit.report.exchange import export_hub
from kit.report.figures import curves
from kit.report.files import read_run
from kit.results.types import Curve, Point, Series
from tests.report.builders import cell, claim, verdict
from tests.report.runs import record, write_run
from tests.report.test_crate import graph


@pytest.mark.parametrize("recorded", [True, False])
def test_the_hub_is_told_the_day_where_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    data = SimpleNamespace(repo="o/data", revision="r")
    monkeypatch.setattr("kit.report.exchange._datasets", lambda run, cell: [data])
    parts: dict[str, Any] = {} if recorded else {"record": None}
    made = verdict(cells=[cell("asr/baseline")])
    run = read_run(write_run(tmp_path / "run", verdict=made, **parts))
    export_hub(run, tmp_path / "out.yaml", url="https://example.org")
    text = (tmp_path / "out.yaml").read_text()
    assert (record()["ended"][:10] in text) == recorded
    assert "percent; PARTIALLY" in text


def test_outputs_of_a_step_are_numbered_by_name(tmp_path: Path) -> None:
    happened = record()
    first = next(iter(happened["steps"]))
    file = {"sha256": "0" * 64, "size": 1}
    happened["steps"][first]["outputs"] = {"z.json": file, "a.json": file, "m.json": file}
    run = read_run(write_run(tmp_path / "run", record=happened))
    items = graph(export_crate(run, tmp_path / "out.zip"))
    names = [items[f"#output-0-{i}"]["name"].split(" of ")[0] for i in range(3)]
    assert names == ["a.json", "m.json", "z.json"]


@pytest.mark.parametrize(("p", "shown"), [(None, "\u2014"), (0.5, "p = 0.500")])
def test_evidence_is_a_dash_where_there_is_none(p: float | None, shown: str) -> None:
    rows = claim_rows(verdict(claims=[claim("a", p=p, p_holm=None, tested="")]), {})
    last = markdown._claims({"claims": rows})[-2]
    assert last.endswith(f"| {shown} |")


def test_seeds_of_lines_are_named_from_few_to_many() -> None:
    def line(count: int) -> list[Curve]:
        return [Curve(seed=str(i), points=[Point(0.0, 1.0), Point(1.0, 2.0)]) for i in range(count)]

    lines = {"a": line(9), "b": line(2), "c": line(17)}
    made = Series(id="s", title="S", x_label="x", y_label="y", unit="loss", lines=lines)
    assert "means over 2 to 17 seeds" in curves.remarks_on(made)[0]
