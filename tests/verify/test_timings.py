"""Times of steps as cells, from the run's record."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from kit.cli.main import run as kit
from kit.results.run import Run
from kit.results.types import Cell, Results
from kit.verify.tampered import fit
from kit.verify.timings import with_timings
from tests import run_files
from tests.verify.builders import expectation, expected_cell, tolerance
from tests.verify.conftest import cells_of, write_run

WITHIN = tolerance("absolute", margin="5")
STEPS = {"align": [], "labels": ["align"], "adapt": ["labels"], "evaluate": ["adapt"]}
SECONDS = {"align": 4.0, "labels": 20.0, "adapt": 6.0, "evaluate": 900.0}


def write(run: Path, *pairs: tuple[str, str], rates: tuple[float, ...] = ()) -> None:
    """Plan and record of a run over pairs (id, group), one step at several rates."""
    instances, steps = [], {}
    for index, (pair, group) in enumerate(pairs):
        where = {"pair": {"id": pair, "group": group, "seed": index}}
        for step, before in STEPS.items():
            for rate in rates if step == "adapt" and rates else [None]:
                id = f"{step}[pair={pair}]" if rate is None else f"{step}[pair={pair},rate={rate}]"
                axes = where if rate is None else where | {"rate": rate}
                read = tuple(
                    one.id
                    for one in instances
                    if one.step in before and one.axes["pair"] == where["pair"]
                )
                instances.append(run_files.instance(id, before=read, axes=axes))
                steps[id] = run_files.ran(id, SECONDS[step] + index)
    run_files.write(run, run_files.plan(*instances), run_files.record(steps=steps))


def change(run: Path, step: str, **fields: Any) -> None:
    """Write a run's record again, with another entry for a step."""
    record = Run(run).record
    assert record is not None
    record.steps[step] = run_files.ran(step, **fields)
    run_files.write(run, record)


def timed(run: Path, *ids: str) -> dict[str, Cell]:
    asked = [
        expected_cell(id, "1", unit="seconds", status="quoted", tolerance=WITHIN) for id in ids
    ]
    table = Results(
        schema_version=1,
        experiment="made",
        version="1-A",
        profile="mini",
        cells=[Cell(id="x/seconds/labels", unit="seconds", value=7.0)],
    )
    return {cell.id: cell for cell in with_timings(table, expectation(asked), Run(run)).cells}


def test_a_step_of_a_group(tmp_path: Path) -> None:
    write(tmp_path, ("a", "x"), ("b", "y"))
    found = timed(tmp_path, "x/seconds/align", "y/seconds/align")
    assert (found["x/seconds/align"].value, found["y/seconds/align"].value) == (4.0, 5.0)
    assert found["x/seconds/align"].step == "align[pair=a]"


def test_the_pipeline_is_what_the_named_steps_were_made_from(tmp_path: Path) -> None:
    """The evaluation measures the outcome; nobody who uses the method waits for it."""
    write(tmp_path, ("a", "x"))
    found = timed(tmp_path, "x/seconds/adapt", "x/seconds/pipeline", "x/seconds/full-dt")
    assert found["x/seconds/pipeline"].value == 30.0
    assert timed(tmp_path, "x/seconds/pipeline")["x/seconds/pipeline"].value == 930.0


def test_replicates_are_listed_and_not_added_up(tmp_path: Path) -> None:
    write(tmp_path, ("a", "x"), ("b", "x"))
    cell = timed(tmp_path, "x/seconds/align")["x/seconds/align"]
    assert cell.value == 4.5
    assert [(seed.seed, seed.value) for seed in cell.seeds] == [("a/0", 4.0), ("b/1", 5.0)]


def test_cached_steps_count_with_what_they_took(tmp_path: Path) -> None:
    write(tmp_path, ("a", "x"))
    change(tmp_path, "align[pair=a]", seconds=4.0, state="cached")
    assert timed(tmp_path, "x/seconds/align")["x/seconds/align"].value == 4.0


@pytest.mark.parametrize("entry", [{"state": "cached", "started": ""}, {"state": "failed"}])
def test_without_a_recorded_time_the_reason_is_said(tmp_path: Path, entry: dict[str, Any]) -> None:
    write(tmp_path, ("a", "x"))
    change(tmp_path, "align[pair=a]", **entry)
    found = timed(tmp_path, "x/seconds/align", "x/seconds/adapt", "x/seconds/pipeline")
    said = "the record has no time of align[pair=a]"
    assert found["x/seconds/align"].not_run == found["x/seconds/pipeline"].not_run == said
    assert found["x/seconds/adapt"].value == 6.0


def test_several_settings_have_a_time_each_and_no_single_one(tmp_path: Path) -> None:
    write(tmp_path, ("a", "x"), rates=(0.1, 0.2))
    change(tmp_path, "adapt[pair=a,rate=0.2]", seconds=8.0)
    asked = [f"x/seconds/{row}" for row in ("adapt", "adapt@0.1", "adapt@0.2", "adapt@0.3")]
    none, first, second, other = (timed(tmp_path, *asked)[id] for id in asked)
    assert none.not_run == "adapt ran at 2 settings: no single time"
    assert (first.value, second.value) == (6.0, 8.0)
    assert other.not_run == "adapt did not run at 0.3"


def test_the_pipeline_at_a_setting_has_the_steps_before_it(tmp_path: Path) -> None:
    write(tmp_path, ("a", "x"), rates=(0.1, 0.2))
    found = timed(tmp_path, "x/seconds/adapt@0.2", "x/seconds/pipeline@0.2", "x/seconds/pipeline")
    assert found["x/seconds/pipeline@0.2"].value == 30.0
    assert found["x/seconds/pipeline"].not_run == "adapt ran at 2 settings: no single time"


def test_the_roles_decide_what_is_a_replicate(tmp_path: Path) -> None:
    """Models x adversaries x seeds: a time of each seed, none of them called a setting."""
    instances, steps = [], {}
    for victim, adversary, seed in product(("base", "guarded"), ("lora", "full"), (0, 1, 2)):
        id = f"attack[victim={victim},adversary={adversary},seed={seed}]"
        axes = {"victim": victim, "adversary": adversary, "seed": seed}
        instances.append(run_files.instance(id, axes=axes))
        steps[id] = run_files.ran(id, 10.0 + seed)
    roles = {"victim": "group", "adversary": "setting", "seed": "replicate"}
    made = run_files.plan(*instances, roles=roles)
    run_files.write(tmp_path, made, run_files.record(steps=steps))
    cell = timed(tmp_path, "guarded/seconds/attack@lora")["guarded/seconds/attack@lora"]
    assert [(one.seed, one.value) for one in cell.seeds] == [("0", 10.0), ("1", 11.0), ("2", 12.0)]


def test_what_is_not_asked_or_there_already_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, ("a", "x"))
    assert set(timed(tmp_path, "x/asr/align")) == {"x/seconds/labels"}
    found = timed(tmp_path, "x/seconds/labels", "x/seconds/unknown", "z/seconds/align")
    assert {id: cell.value for id, cell in found.items()} == {"x/seconds/labels": 7.0}
    (tmp_path / "nothing").mkdir()
    assert set(timed(tmp_path / "nothing", "x/seconds/align")) == {"x/seconds/labels"}


def test_verify_compares_times(
    run_dir: Path, repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repo / "expected_results" / "family" / "made.mini.yaml"
    rule = "{kind: bound, bound: '199.0', side: at_most, reason: as long as the document took}"
    cells = [("align", "reported", "199.0"), ("full-dt", "quoted", "57600")]
    added = "".join(
        f'  - id: x/seconds/{step}\n    status: {status}\n    value: "{value}"\n'
        f"    unit: seconds\n    place: doc\n"
        + (f"    tolerance: {rule}\n" if status == "reported" else "")
        for step, status, value in cells
    )
    path.write_text(path.read_text().replace("claims:\n", added + "claims:\n"))
    write_run(run_dir, cells_of())
    write(run_dir, ("a", "x"))
    fit(run_dir)
    assert kit(["verify", str(run_dir), "--explain"]) == 0
    said = capsys.readouterr().out
    assert "cell x/seconds/align reproduced" in said
    written = json.loads((run_dir / "verdict.json").read_text())
    full = next(cell for cell in written["cells"] if cell["id"] == "x/seconds/full-dt")
    assert (full["verdict"], full["detail"]) == ("not-compared", "quoted from elsewhere")
