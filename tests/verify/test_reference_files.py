"""Where the record of reference runs goes, and which runs it is not made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from kit.errors import InvalidInput
from kit.manifest.load import load_expectation
from kit.results.run import Run
from kit.verify.reference import check_runs, compact_record, update
from tests import run_files
from tests.verify.conftest import cells_of, write_run

WHERE = Path("expected_results/family/made.mini.yaml")


def a_run(repo: Path, name: str = "a", **fields: Any) -> Run:
    write_run(repo / "runs" / name, cells_of(), **fields)
    return Run(repo / "runs" / name)


@pytest.mark.parametrize("name", ["../reference/made.mini.jsonl", "new/deep/made.jsonl"])
def test_the_record_is_written_where_the_expectation_says(repo: Path, name: str) -> None:
    """In folders that are there and in those that are not yet."""
    path = repo / WHERE
    before = path.read_text()
    expected = structs.replace(load_expectation(path), record=name)
    target, cells = update(path, expected, [a_run(repo)], repo)
    assert (target, cells) == (path.parent / name, 3)
    assert [json.loads(line).get("id") for line in target.read_text().splitlines()] == [
        None, "t1/none", "t1/defended", "t2/loss"
    ]  # fmt: skip
    assert path.read_text() == before


@pytest.mark.parametrize(("inside", "name"), [(True, "../reference/made.mini.jsonl"),
                                              (False, "made.mini.reference.jsonl")])  # fmt: skip
def test_an_expectation_of_ones_own_has_its_record_beside_it(
    repo: Path, tmp_path: Path, inside: bool, name: str
) -> None:
    text = (repo / WHERE).read_text().replace("record: ../reference/made.mini.jsonl\n", "")
    path = repo / WHERE if inside else tmp_path / "own.yaml"
    (repo / WHERE).with_name("published.jsonl").rename(path.parent / "published.jsonl")
    path.write_text(text)
    target, cells = update(path, load_expectation(path), [a_run(repo)], repo)
    assert target == path.parent / name
    assert cells == 3
    assert path.read_text() == text.replace("version: 1-A\n", f"version: 1-A\nrecord: {name}\n")
    assert load_expectation(path).record == name


@pytest.mark.parametrize("field", ["profile", "experiment"])
def test_a_run_of_something_else_is_no_reference(repo: Path, field: str) -> None:
    """Though whole, and of one experiment and profile in itself."""
    run = a_run(repo, **{field: "other"})
    with pytest.raises(InvalidInput, match=f"field '{field}': 'other'"):
        check_runs(load_expectation(repo / WHERE), [run])


@pytest.mark.parametrize(("other", "refused"), [("b", True), ("a", False)])
def test_runs_of_different_code_are_no_reference(repo: Path, other: str, refused: bool) -> None:
    runs = [
        a_run(repo, name, changed={"steps": {"table": run_files.ran("table", code=code)}})
        for name, code in (("first", "a"), ("second", other))
    ]
    expected = load_expectation(repo / WHERE)
    if refused:
        with pytest.raises(InvalidInput, match="made by different code"):
            check_runs(expected, runs)
    else:
        check_runs(expected, runs)


def test_the_record_has_the_cells_that_are_expected_of_each_run(repo: Path) -> None:
    expected = load_expectation(repo / WHERE)
    more = [*cells_of(), {"id": "t9/more", "unit": "loss", "value": 1.0}]
    write_run(repo / "runs" / "b", more)
    runs = [a_run(repo), Run(repo / "runs" / "b")]
    lines = [json.loads(line) for line in compact_record(expected, runs).splitlines()]
    heads = [line for line in lines if "run" in line]
    assert [head["run"] for head in heads] == ["a", "b"]
    assert [head["results_sha256"] for head in heads] == [run.results_sha256 for run in runs]
    ids = [line["id"] for line in lines if "id" in line]
    assert ids == ["t1/none", "t1/defended", "t2/loss"] * 2
