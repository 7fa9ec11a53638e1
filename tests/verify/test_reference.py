"""``kit reference``: reference blocks, and nothing else."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import pytest

from kit.cli.reference import command
from kit.errors import InvalidInput
from kit.manifest.load import load_expectation
from kit.verify.reference import without_host
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
    changed = [
        line[2:]
        for line in difflib.ndiff(before.splitlines(), path.read_text().splitlines())
        if line[:1] in "+-"
    ]
    fields = ("reference:", "mean:", "sd:", "n_seeds:", "values:", "seeds:", "record:", '- "')
    assert all(line.strip().startswith(fields) for line in changed)
    assert "# attack success, as the document prints it" in path.read_text()


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
    before = path.read_text()
    first = with_seeds(repo / "runs" / "a", {"0": 1.25, "1": 1.5})
    second = with_seeds(repo / "runs" / "b", {"1": 1.75})
    with pytest.raises(InvalidInput, match="seed '1' is in two runs"):
        call("made", str(first), str(second))
    assert path.read_text() == before
    assert not (repo / "expected_results" / "reference").exists()


@pytest.mark.parametrize("record", [{"overrides": ["a.b=1"]}, {"rehearsal": True}])
def test_modified_runs_and_rehearsals_are_no_reference(repo: Path, record: dict[str, Any]) -> None:
    run = with_seeds(repo / "runs" / "a", {"0": 1.25, "1": 1.5})
    run_files.write(run, run_files.record(**record))
    with pytest.raises(InvalidInput, match=r"modified|rehearsal"):
        call("made", str(run))


def test_host_fields_go_at_any_depth() -> None:
    record = {"a": [{"Hostname": "x", "b": 1}], "argv": ["kit"], "c": {"user": "y"}}
    assert without_host(record) == {"a": [{"b": 1}], "c": {}}


def test_the_kits_home_is_a_place_and_no_fact() -> None:
    record = {"environment": {"KIT_HOME": "/home/me/.kit", "OMP_NUM_THREADS": "1"}}
    assert without_host(record) == {"environment": {"OMP_NUM_THREADS": "1"}}
