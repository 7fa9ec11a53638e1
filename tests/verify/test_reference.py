"""``kit reference``: the record of runs, and the line that names it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.cli.reference import command
from kit.errors import InvalidInput
from kit.manifest.load import load_expectation
from kit.verify.reference import _check_code, without_host
from tests import run_files
from tests.verify.conftest import cells_of, write_run


def with_seeds(path: Path, seeds: dict[str, float], **fields: Any) -> Path:
    cells = cells_of()
    cells[2]["seeds"] = [{"seed": s, "value": v} for s, v in seeds.items()]
    cells[2]["value"] = sum(seeds.values()) / len(seeds)
    write_run(path, cells, **fields)
    return path


def call(*arguments: str) -> None:
    command.main(list(arguments), standalone_mode=False)


def test_seeds_of_several_runs_are_put_together(repo: Path) -> None:
    first = with_seeds(repo / "runs" / "a", {"0": 1.25, "1": 1.5})
    second = with_seeds(repo / "runs" / "b", {"2": 1.75})
    path = repo / "expected_results" / "family" / "made.mini.yaml"
    before = path.read_text()
    call("made", str(first), str(second))
    cell = load_expectation(path).cells[2]
    assert cell.reference is not None
    assert cell.reference.values == ["1.25", "1.5", "1.75"]
    assert cell.reference.seeds == ["0", "1", "2"]
    assert (cell.reference.mean, cell.reference.sd, cell.reference.n_seeds) == ("1.5", "0.25", 3)
    assert path.read_text() == before


def test_the_named_record_need_not_be_there_yet(repo: Path) -> None:
    path = repo / "expected_results" / "family" / "made.mini.yaml"
    (repo / "expected_results" / "reference" / "made.mini.jsonl").unlink()
    call("made", str(with_seeds(repo / "runs" / "a", {"0": 1.25, "1": 1.5})))
    assert load_expectation(path).cells[2].reference is not None


def test_an_expectation_without_a_record_gets_the_line_and_nothing_else(repo: Path) -> None:
    path = repo / "expected_results" / "family" / "made.mini.yaml"
    named = path.read_text()
    path.write_text(named.replace("record: ../reference/made.mini.jsonl\n", ""))
    (repo / "expected_results" / "reference" / "made.mini.jsonl").unlink()
    call("made", str(with_seeds(repo / "runs" / "a", {"0": 1.25, "1": 1.5})))
    assert path.read_text() == named
    assert load_expectation(path).cells[2].reference is not None


def test_values_come_in_the_unit_of_the_expectation(repo: Path) -> None:
    path = repo / "expected_results" / "family" / "made.mini.yaml"
    call("made", str(with_seeds(repo / "runs" / "a", {"0": 1.25})))
    cell = load_expectation(path).cells[1]
    assert cell.unit == "percent"  # the run measured a fraction
    assert cell.reference is not None
    assert cell.reference.values == ["4.32692307692"]  # 9 of 208
    assert cell.reference.seeds == ["a"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"run": "r"}\n{"id": "t2/loss", "value": \xff}\n', "made.mini.jsonl:2"),
        (b'{"id": "t2/loss", "value": 1', "made.mini.jsonl:1"),
        (b"[" * 100_000, "made.mini.jsonl:1"),
        (None, "No such file"),
    ],
)
def test_a_damaged_record_is_said_with_its_line(
    repo: Path, content: bytes | None, said: str
) -> None:
    record = repo / "expected_results" / "reference" / "made.mini.jsonl"
    record.unlink()
    if content is not None:
        record.write_bytes(content)
    with pytest.raises(InvalidInput, match="record of reference runs") as caught:
        load_expectation(repo / "expected_results" / "family" / "made.mini.yaml")
    assert said in str(caught.value)


def test_the_record_has_results_and_no_host(repo: Path) -> None:
    run = with_seeds(repo / "runs" / "a", {"0": 1.25, "1": 1.5})
    call("made", str(run))
    head = json.loads(
        (repo / "expected_results/reference/made.mini.jsonl").read_text().split("\n")[0]
    )
    assert head["record"]["hardware"] == {"cpus": 2}
    assert head["record"]["status"] == "finished"
    assert not {"argv", "hostname"} & head["record"].keys()
    assert len(head["results_sha256"]) == 64


def test_the_new_reference_matches_its_own_run(repo: Path) -> None:
    from kit.cli.main import run as kit

    run = with_seeds(repo / "runs" / "a", {"0": 1.1, "1": 1.4, "2": 1.3})
    call("made", str(run))
    kit(["verify", str(run)])
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["cells"][2]["verdict"] == "match"


def test_a_seed_in_two_runs_is_refused(repo: Path) -> None:
    path = repo / "expected_results" / "family" / "made.mini.yaml"
    record = repo / "expected_results" / "reference" / "made.mini.jsonl"
    before, kept = path.read_text(), record.read_text()
    first = with_seeds(repo / "runs" / "a", {"0": 1.25, "1": 1.5})
    second = with_seeds(repo / "runs" / "b", {"1": 1.75})
    with pytest.raises(InvalidInput, match="seed '1' is in two runs"):
        call("made", str(first), str(second))
    assert path.read_text() == before
    assert record.read_text() == kept


@pytest.mark.parametrize("record", [{"overrides": ["a.b=1"]}, {"rehearsal": True}])
def test_modified_runs_and_rehearsals_are_no_reference(repo: Path, record: dict[str, Any]) -> None:
    run = with_seeds(repo / "runs" / "a", {"0": 1.25, "1": 1.5})
    run_files.write(run, run_files.record(**record))
    with pytest.raises(InvalidInput, match=r"modified|rehearsal"):
        call("made", str(run))


@pytest.mark.parametrize("name", ["plan.json", "record.json"])
def test_a_run_that_lacks_something_is_no_reference(repo: Path, name: str) -> None:
    run = with_seeds(repo / "runs" / "a", {"0": 1.25, "1": 1.5})
    (run / name).unlink()
    run_files.close(run)
    with pytest.raises(InvalidInput, match=f"the run is not whole: {name} is not there"):
        call("made", str(run))


def test_host_fields_go_at_any_depth() -> None:
    record = {"a": [{"Hostname": "x", "b": 1}], "argv": ["kit"], "c": {"user": "y"}}
    assert without_host(record) == {"a": [{"b": 1}], "c": {}}


def test_the_kits_home_is_a_place_and_no_fact() -> None:
    record = {"environment": {"KIT_HOME": "/home/me/.kit", "OMP_NUM_THREADS": "1"}}
    assert without_host(record) == {"environment": {"OMP_NUM_THREADS": "1"}}


def made_by(code: str, *, version: int = 1, stale: bool = False) -> Any:
    """A run with one step of that code."""
    instance = run_files.instance("train", version=version)
    record = run_files.record(steps={"train": run_files.ran("train", code=code, stale=stale)})
    return SimpleNamespace(path=Path("runs/x"), plan=run_files.plan(instance), record=record)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([made_by("a"), made_by("a")], ""),
        ([made_by("a"), made_by("b")], "steps of made/step were made by different code"),
        ([made_by("a"), made_by("b", version=2)], ""),  # another version may be other code
        ([made_by("a"), made_by("")], ""),  # nothing is known
        ([made_by(""), made_by("a"), made_by("b")], "different code"),
        ([made_by("a", stale=True)], "1 finished step was made by earlier code"),
        ([SimpleNamespace(path=Path("x"), plan=None, record=None)], ""),
        ([SimpleNamespace(path=Path("x"), plan=None, record=made_by("a").record)], ""),
    ],
)
def test_a_reference_is_of_one_code(runs: list[Any], said: str) -> None:
    if said:
        with pytest.raises(InvalidInput, match=said):
            _check_code(runs)
    else:
        _check_code(runs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overrides": ["seed=7"]}, ""),
        ({"overrides": ["seed=7", "a.b=1"]}, r"modified \(a.b=1\)"),
        ({"rehearsal": True}, "the run is a rehearsal"),
    ],
)
def test_other_seeds_make_a_reference_and_other_parameters_do_not(
    repo: Path, changes: dict[str, Any], said: str
) -> None:
    run = with_seeds(repo / "runs" / "a", {"0": 1.25, "1": 1.5}, changed=changes)
    if said:
        with pytest.raises(InvalidInput, match=said):
            call("made", str(run))
    else:
        call("made", str(run))
