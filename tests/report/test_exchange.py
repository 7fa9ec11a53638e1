"""Formats of other people, held to their published schemas and read back by their own library."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from huggingface_hub import parse_eval_result_entries
from msgspec.structs import replace
from ruamel.yaml import YAML

from kit.errors import InvalidInput
from kit.report.exchange import export_eee, export_hub
from kit.report.files import read_run
from tests.report.builders import verdict
from tests.report.runs import plan, results, write_run

SCHEMAS = Path(__file__).parent / "schemas" / "every_eval_ever"
"""Version 0.3.0, with the licence of its repository (MIT)."""


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which one cell kept labels in every replicate."""
    folder = tmp_path / "run"
    table, said = results(), verdict()
    first = next(c for c in said.cells if c.value is not None and c.direction != "none")
    lines, cells = [], []
    for cell in table.cells:
        if cell.id == first.id:
            seeds = []
            for seed in cell.seeds:
                key = f"{cell.id}#{seed.seed}"
                lines.append({"id": key, "items": ["a", "b", "c"], "labels": [1, 0, 0]})
                seeds.append(replace(seed, labels=f"labels.jsonl#{key}"))
            cell = replace(cell, seeds=seeds)
        cells.append(cell)
    write_run(folder, results=replace(table, cells=cells))
    (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_records_follow_the_published_schema(run: Path, tmp_path: Path) -> None:
    records = export_eee(read_run(run), tmp_path / "out", organization="A lab")
    measured = {c.id for c in verdict().cells if c.value is not None and c.direction != "none"}
    named = []
    items = 0
    for path in records:
        record = json.loads(path.read_text())
        jsonschema.validate(record, schema("eval.schema.json"))
        named += [one["evaluation_result_id"] for one in record["evaluation_results"]]
        if "detailed_evaluation_results" in record:
            detail = record["detailed_evaluation_results"]
            content = (tmp_path / "out" / detail["file_path"]).read_bytes()
            assert sha256(content).hexdigest() == detail["checksum"]
            lines = [json.loads(line) for line in content.splitlines()]
            assert len(lines) == detail["total_rows"]
            for line in lines:
                jsonschema.validate(line, schema("instance_level_eval.schema.json"))
                assert line["evaluation_id"] == record["evaluation_id"]
            items += len(lines)
    assert sorted(named) == sorted(measured)
    assert items == 10 * 3


def test_an_attack_that_succeeds_is_not_correct(run: Path, tmp_path: Path) -> None:
    """In the format `is_correct` is about the model; an attack success rate counts its failures."""
    records = export_eee(read_run(run), tmp_path / "out", organization="A lab")
    (path,) = (tmp_path / "out").rglob("*_samples.jsonl")
    assert len(records) > 1
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    reports = {cell.id: cell for cell in verdict().cells}
    for line in lines:
        lower = reports[line["evaluation_result_id"]].direction == "lower_is_better"
        assert line["evaluation"]["is_correct"] == ((line["evaluation"]["score"] == 0) == lower)
        assert line["output"] == {"raw": []}


def test_intervals_and_scale_travel(run: Path, tmp_path: Path) -> None:
    records = [
        json.loads(path.read_text())
        for path in export_eee(read_run(run), tmp_path / "out", organization="A lab")
    ]
    scores = {
        one["evaluation_result_id"]: one["score_details"]
        for record in records
        for one in record["evaluation_results"]
    }
    for cell in verdict().cells:
        if cell.id in scores and cell.value_interval is not None:
            interval = scores[cell.id]["uncertainty"]["confidence_interval"]
            assert interval["lower"] == cell.value_interval.low
            assert interval["confidence_level"] == 0.95
    assert all("verdict" in r["source_metadata"]["additional_details"] for r in records)


def test_the_hub_reads_its_file(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no cell of this run was measured on a dataset"):
        export_hub(read_run(run), tmp_path / "x.yaml", url="https://example.org/run")
    made = plan()
    data = {
        "id": "items",
        "kind": "hf-dataset",
        "title": "Items",
        "licence": "MIT",
        "repo": "someone/items",
        "revision": "ab" * 20,
        "files": [{"path": "items.json", "sha256": "1c" * 32, "size": 1}],
    }
    made["pins"].append(data)
    made["instances"][0]["pins"]["data"] = {"pin": "items", "digest": "0e" * 32}
    write_run(run, plan=made)
    count = export_hub(read_run(run), tmp_path / "x.yaml", url="https://example.org/run")
    content = YAML(typ="safe").load((tmp_path / "x.yaml").read_text())
    entries = parse_eval_result_entries(content)
    assert len(entries) == count > 0
    assert {entry.dataset_id for entry in entries} == {"someone/items"}
    assert {entry.dataset_revision for entry in entries} == {"ab" * 20}
    units = {cell.id: cell.unit for cell in verdict().cells}
    assert all((e.notes or "").startswith(units[e.task_id]) for e in entries)


def test_what_is_asked_of_a_curve_is_a_score_without_items(run: Path, tmp_path: Path) -> None:
    said = verdict()
    first = next(c for c in said.cells if c.value is not None and c.direction != "none")
    asked = replace(said, cells=[*said.cells, replace(first, id=f"{first.id}:max")])
    before = json.loads((run / "results.json").read_text())
    write_run(run, verdict=asked, results=before)
    records = export_eee(read_run(run), tmp_path / "out", organization="A lab")
    named = [
        one["evaluation_result_id"]
        for path in records
        for one in json.loads(path.read_text())["evaluation_results"]
    ]
    assert f"{first.id}:max" in named
    (samples,) = (tmp_path / "out").rglob("*_samples.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert {line["evaluation_result_id"] for line in lines} == {first.id}


def test_a_rehearsal_is_refused(run: Path, tmp_path: Path) -> None:
    write_run(run, verdict=replace(verdict(), verdict="REHEARSED"))
    with pytest.raises(InvalidInput, match="a rehearsal has no results"):
        export_eee(read_run(run), tmp_path / "out", organization="A lab")
    with pytest.raises(InvalidInput, match="a rehearsal has no results"):
        export_hub(read_run(run), tmp_path / "x.yaml", url="https://example.org/run")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x.yaml").exists()
