"""Formats of other people, held to their published schemas and read back by their own library."""

from __future__ import annotations

import json
from datetime import datetime
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
from tests.report.runs import plan, record, results, write_run

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


def rows_of(run: Path, out: Path) -> list[dict[str, Any]]:
    records = export_eee(read_run(run), out, organization="A lab")
    return [json.loads(path.read_text()) for path in records]


def results_of(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        one["evaluation_result_id"]: one
        for record in records
        for one in record["evaluation_results"]
    }


def pinned(kind: str, **fields: str) -> dict[str, Any]:
    files = [{"path": "items.json", "sha256": "1c" * 32, "size": 1}]
    return {
        "id": "items",
        "kind": kind,
        "title": "Items",
        "licence": "MIT",
        "files": files,
        **fields,
    }


REPO = {"repo": "someone/items", "revision": "ab" * 20}


@pytest.mark.parametrize(
    ("pin", "said"),
    [
        (pinned("hf-dataset", **REPO), {"source_type": "hf_dataset", "hf_repo": "someone/items"}),
        (pinned("file", url="https://example.org/x"),
         {"source_type": "url", "url": ["https://example.org/x"]}),
        (pinned("hf-model", **REPO), {"source_type": "other"}),
        (pinned("package", path="mini"), {"source_type": "other"}),
    ],
)  # fmt: skip
def test_a_score_names_the_data_behind_it(
    run: Path, tmp_path: Path, pin: dict[str, Any], said: dict[str, Any]
) -> None:
    made = plan()
    made["pins"].append(pin)
    made["instances"][0]["pins"]["data"] = {"pin": "items", "digest": "0e" * 32}
    write_run(run, plan=made)
    sources = [one["source_data"] for one in results_of(rows_of(run, tmp_path / "o")).values()]
    title = "tiny-adapt mini" if said["source_type"] == "other" else "Items"
    assert {**said, "dataset_name": title} in sources


def test_a_row_is_made_from_the_pins_before_its_step_or_from_all(run: Path, tmp_path: Path) -> None:
    def made_from() -> dict[str, str]:
        models = [record["model_info"] for record in rows_of(run, tmp_path / "o")]
        return {model["name"]: model["additional_details"]["made_from"] for model in models}

    made = plan()
    write_run(run, plan=made)
    assert set(made_from().values()) == {"mini-a@kit"}
    made["instances"][0]["pins"]["source"]["pin"] = "llama-3.1-8b-instruct"
    write_run(run, plan=made)
    llama = f"meta-llama/Llama-3.1-8B-Instruct@{'0e' * 20}"
    assert set(made_from().values()) == {llama}
    cells = [replace(cell, step="elsewhere") for cell in results().cells]
    write_run(run, plan=made, results=replace(results(), cells=cells))
    assert set(made_from().values()) == {f"mini-a@kit, {llama}, wmdp-corpus@kit"}
    (run / "plan.json").unlink()
    assert set(made_from().values()) == {""}


def test_a_score_says_direction_range_and_how_many_it_rests_on(run: Path, tmp_path: Path) -> None:
    first = next(c for c in verdict().cells if c.value_interval is not None)
    cells = [
        replace(first, id="asr/a", seeds=10, n=208),
        replace(first, id="asr/b", seeds=0, n=208, title="T", direction="higher_is_better"),
        replace(first, id="asr/c", seeds=0, n=None, unit="fraction"),
        replace(first, id="asr/d", unit="loss", value_interval=None),
    ]
    table = results(cells=[replace(results().cells[0], id=cell.id) for cell in cells])
    write_run(run, verdict=verdict(cells=cells, headline=""), results=table)
    records = rows_of(run, tmp_path / "o")
    known = results_of(records)
    samples = [known[f"asr/{x}"]["score_details"]["uncertainty"]["num_samples"] for x in "abc"]
    assert samples == [10, 208, 1]
    assert "uncertainty" not in known["asr/d"]["score_details"]
    config = {id: one["metric_config"] for id, one in known.items()}
    assert [config[f"asr/{x}"]["lower_is_better"] for x in "ab"] == [True, False]
    ranges = [(of.get("min_score"), of.get("max_score")) for of in config.values()]
    assert ranges == [(0, 100), (0, 100), (0, 1), (None, None)]
    described = [config[f"asr/{x}"]["evaluation_description"] for x in "ab"]
    assert described == ["asr/a" if not first.title else first.title, "T"]
    said = {record["source_metadata"]["additional_details"]["verdict"] for record in records}
    assert said == {"PARTIALLY"}, "the word, where there is no headline"


def test_time_and_engine_come_from_the_record(run: Path, tmp_path: Path) -> None:
    times, engines = [], []
    for change in ({}, {"versions": {"vllm": "1.2"}}, {"versions": {"transformers": "5"}}, None):
        made = None if change is None else record() | change
        if made is None:
            (run / "record.json").unlink()
        write_run(run, record=made)
        one = rows_of(run, tmp_path / "o")[0]
        times.append(int(one["retrieved_timestamp"]))
        engines.append(one["model_info"]["inference_engine"])
    ended = datetime.fromisoformat(record()["ended"]).timestamp()
    assert times == [int(ended)] * 3 + [0]
    assert engines == [
        {"name": "transformers", "version": "unknown"}, {"name": "vllm", "version": "1.2"},
        {"name": "transformers", "version": "5"}, {"name": "transformers", "version": "unknown"},
    ]  # fmt: skip


def test_without_a_better_direction_there_is_no_record(run: Path, tmp_path: Path) -> None:
    cells = [replace(cell, direction="none") for cell in verdict().cells]
    write_run(run, verdict=verdict(cells=cells))
    with pytest.raises(InvalidInput, match="which direction is better"):
        export_eee(read_run(run), tmp_path / "out", organization="A lab")
    assert not (tmp_path / "out").exists()


def test_items_without_names_are_counted_and_cells_keep_labels_too(
    run: Path, tmp_path: Path
) -> None:
    table = results()
    first = next(c for c in verdict().cells if c.value is not None and c.direction != "none")
    cells = [replace(cell, seeds=[], labels="labels.jsonl#all") if cell.id == first.id else cell
             for cell in table.cells]  # fmt: skip
    write_run(run, results=replace(table, cells=cells))
    (run / "labels.jsonl").write_text(json.dumps({"id": "all", "labels": [1, 0]}) + "\n")
    rows_of(run, tmp_path / "o")
    (path,) = (tmp_path / "o").rglob("*_samples.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["sample_id"], line["metadata"]["seed"]) for line in lines] == [
        ("0", ""),
        ("1", ""),
    ]


def test_a_rehearsal_is_refused(run: Path, tmp_path: Path) -> None:
    write_run(run, verdict=replace(verdict(), verdict="REHEARSED"))
    with pytest.raises(InvalidInput, match="a rehearsal has no results"):
        export_eee(read_run(run), tmp_path / "out", organization="A lab")
    with pytest.raises(InvalidInput, match="a rehearsal has no results"):
        export_hub(read_run(run), tmp_path / "x.yaml", url="https://example.org/run")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x.yaml").exists()
