"""What a run lacks: each thing taken away by itself is named, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.manifest.expectation_types import Derived, Expectation, ExpectedCell
from kit.manifest.pin_types import Pin, PinnedFile
from kit.results.plan import PinUse
from kit.results.record import FileRecord, PinRecord
from kit.results.run import Run
from kit.results.types import Canary, Cell, LineRef, SeedValue
from kit.verify.whole import absences
from tests import run_files
from tests.verify.builders import expectation, expected_cell, line_of, table

HEX = "ab" * 32
LINES = [
    {"id": "named", "items": ["x", "y", "z", "w"], "labels": [1, 0, 1, 0]},
    {"id": "bare", "labels": [1, 0, 1, 0]},
]


def lacking(
    folder: Path,
    cells: Sequence[Cell],
    expected: Expectation | Sequence[ExpectedCell] | None = None,
    *,
    plan: Any = None,
    record: dict[str, Any] | None = None,
    events: str | None = None,
    gone: Sequence[str] = (),
    **fields: Any,
) -> list[str]:
    """What is absent from a run with these cells; by default a plan of one step that ran."""
    (folder / "results.json").write_bytes(msgspec.json.encode(table(cells, **fields)))
    (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    plan = plan or run_files.plan()
    run_files.write(folder, plan)
    digest = sha256((folder / "results.json").read_bytes()).hexdigest()
    steps = {instance.id: run_files.ran(instance.id) for instance in plan.instances}
    defaults: dict[str, Any] = {"results_sha256": digest, "steps": steps}
    run_files.write(folder, run_files.record(**defaults | (record or {})))
    (folder / "events.jsonl").write_text(event() if events is None else events)
    run_files.close(folder)
    for name in gone:
        (folder / name).unlink()
    if expected is None:
        expected = [expected_cell(cell.id, None, unit=cell.unit) for cell in cells]
    if not isinstance(expected, Expectation):
        expected = expectation(expected)
    return absences(Run(folder), expected)


def event(**fields: Any) -> str:
    known = {"event": "run-started", "time": run_files.STARTED, "experiment": "made",
             "profile": "mini"}  # fmt: skip
    return json.dumps(known | fields) + "\n"


DIFFER = "record.json and plan.json differ in"
PLAIN = Cell(id="g/loss/x", unit="loss", value=1.0)


def test_a_whole_run_lacks_nothing(tmp_path: Path) -> None:
    assert lacking(tmp_path, [PLAIN]) == []


@pytest.mark.parametrize("name", ["SHA256SUMS", "record.json", "plan.json"])
def test_what_was_removed_is_said_to_be_absent(tmp_path: Path, name: str) -> None:
    (said,) = lacking(tmp_path, [PLAIN], gone=[name])
    assert said.startswith(f"{name} is not there: ")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"status": "failed"}, ["the run is recorded as failed"]),
        ({"results_sha256": ""}, ["record.json does not name the sha256 of results.json"]),
        ({"version": "2"}, ["record.json is of another version: '2', the table's is '1-A'",
                            f"{DIFFER} version: '2' and '1-A'"]),
        ({"variant": "own"}, [f"{DIFFER} variant: 'own' and 'as-reported'"]),
        ({"seed": 3}, [f"{DIFFER} seed: 3 and None"]),
        ({"overrides": ["a=1"]}, [f"{DIFFER} overrides: ['a=1'] and []"]),
        ({"rehearsal": True}, [f"{DIFFER} rehearsal: True and False"]),
        ({"steps": {}}, ["1 of 1 steps are not in record.json: table"]),
        ({"steps": {"table": run_files.ran("table", key=HEX)}},
         ["1 step stands in record.json under another key: table"]),
        ({"steps": {"table": run_files.ran("table", state="cached")}}, []),
        ({"steps": {"table": run_files.ran("table", state="failed")}},
         ["1 step did not finish: table"]),
    ],
)  # fmt: skip
def test_a_record_of_something_else(
    tmp_path: Path, record: dict[str, Any], said: list[str]
) -> None:
    assert lacking(tmp_path, [PLAIN], record=record) == said


@pytest.mark.parametrize("name", ["experiment", "profile"])
def test_a_record_of_another_experiment_is_of_another_event_and_plan(
    tmp_path: Path, name: str
) -> None:
    said = lacking(tmp_path, [PLAIN], record={name: "other"})
    assert [name in line for line in said] == [True, False, True]
    assert said[0].startswith(f"record.json is of another {name}: 'other'")
    assert said[1] == "events.jsonl knows no run that began when record.json says"


def test_of_several_steps_those_are_named_that_are_amiss(tmp_path: Path) -> None:
    names = ["lost", "other", "open", "fine"]
    plan = run_files.plan(*(run_files.instance(name) for name in names))
    steps = {
        "other": run_files.ran("other", key=HEX),
        "open": run_files.ran("open", state="running"),
        "fine": run_files.ran("fine"),
    }
    assert lacking(tmp_path, [PLAIN], plan=plan, record={"steps": steps}) == [
        "1 of 4 steps are not in record.json: lost",
        "1 step stands in record.json under another key: other",
        "1 step did not finish: open",
    ]


@pytest.mark.parametrize(
    ("digest", "gone", "whole"),
    [(None, [], True), (None, ["labels.jsonl"], True), ("own", [], True),
     (HEX, [], False), ("own", ["labels.jsonl"], False)],
)  # fmt: skip
def test_labels_are_those_that_the_last_step_wrote(
    tmp_path: Path, digest: str | None, gone: list[str], whole: bool
) -> None:
    own = sha256("".join(json.dumps(line) + "\n" for line in LINES).encode()).hexdigest()
    file = FileRecord(sha256=own if digest == "own" else HEX, size=1)
    outputs = {} if digest is None else {"labels.jsonl": file}
    steps = {"table": run_files.ran("table", outputs=outputs)}
    said = lacking(tmp_path, [PLAIN], record={"steps": steps}, gone=gone)
    assert said == ([] if whole else ["labels.jsonl is not what the step table wrote"])


@pytest.mark.parametrize(
    ("events", "known"),
    [
        (event(time="2026-11-21T09:01:00.000Z"), True),
        (event(time="2026-11-21T08:59:00.000Z"), True),
        (event(time="2026-11-21T09:01:00.001Z"), False),
        (event(time="2026-11-21T08:58:59.999Z"), False),
        (event(time="2026-11-21T09:00:00.000"), False),
        (event(experiment="other"), False),
        (event(profile="full"), False),
        (event(event="step", note="run-started"), False),
        (event(profile="full") + event() + event(time="2026-11-22T09:00:00Z"), True),
        (event(event="step-done"), False),
        ("not JSON\n" + event(), True),
        (event() + '{"event": "run-started"', False),
        (event() + '{"event": "run-started"}\n', False),
        ("", False),
    ],
)
def test_the_run_began_when_its_record_says(tmp_path: Path, events: str, known: bool) -> None:
    """To within a minute, by an event of this experiment and profile."""
    said = lacking(tmp_path, [PLAIN], events=events)
    assert said == ([] if known else ["events.jsonl knows no run that began when record.json says"])


@pytest.mark.parametrize("started", ["2026-11-21T09:00:00.000", "yesterday"])
def test_a_start_that_is_no_moment_is_not_known(tmp_path: Path, started: str) -> None:
    said = lacking(tmp_path, [PLAIN], record={"started": started})
    assert said == ["events.jsonl knows no run that began when record.json says"]


def test_without_events_no_start_is_known(tmp_path: Path) -> None:
    said = lacking(tmp_path, [PLAIN], gone=["events.jsonl"])
    assert said == ["events.jsonl knows no run that began when record.json says"]


PIN = Pin(
    id="weights", kind="hf-model", title="w", licence="MIT", repo="a/b", revision="1" * 40,
    files=[PinnedFile(path="f", sha256=HEX, size=1)],
)  # fmt: skip
USED = PinRecord(kind="hf-model", repo="a/b", revision="1" * 40, digest="d1", files={"f": HEX})


@pytest.mark.parametrize(
    ("pins", "whole"),
    [
        ({"weights": USED}, True),
        ({}, False),
        ({"weights": USED, "more": USED}, False),
        ({"weights": msgspec.structs.replace(USED, revision="2" * 40)}, False),
        ({"weights": msgspec.structs.replace(USED, repo="a/c")}, False),
        ({"weights": msgspec.structs.replace(USED, url="https://example.org")}, False),
        ({"weights": msgspec.structs.replace(USED, digest="d2")}, False),
        ({"weights": msgspec.structs.replace(USED, files={})}, False),
    ],
)
def test_pins_are_used_as_planned(tmp_path: Path, pins: dict[str, PinRecord], whole: bool) -> None:
    step = run_files.instance("table", pins={"model": PinUse(pin="weights", digest="d1")})
    plan = run_files.plan(step, pins=[PIN])
    said = lacking(tmp_path, [PLAIN], plan=plan, record={"pins": pins})
    other = "more" if "more" in pins else "weights"
    assert said == ([] if whole else [f"1 pin of plan.json not as record.json has it: {other}"])


def test_canaries_are_heard_from_each_step(tmp_path: Path) -> None:
    steps = [run_files.instance(f"train[{i}]", canaries=["moved", "still"]) for i in range(3)]
    heard = [("train[0]", "moved"), ("train[1]", "still"), ("train[0]", "still")]
    canaries = [Canary(id=id, step=step, passed=True, detail="d") for step, id in heard]
    said = lacking(tmp_path, [PLAIN], plan=run_files.plan(*steps), canaries=canaries)
    assert said == [
        "canary moved of 2 steps is not there: train[1], train[2]",
        "canary still of 1 steps is not there: train[2]",
    ]


# Replicates.


def seeded_cell(id: str, names: Sequence[str], step: str = "", **fields: Any) -> Cell:
    seeds = [SeedValue(seed=name, value=1.0) for name in names]
    return Cell(id=id, unit="loss", value=1.0 if seeds else None, seeds=seeds, step=step, **fields)


def arms(*ids: str, roles: dict[str, str]) -> Any:
    """A plan with a step for each ``arm-seed``, and a table."""
    made = []
    for id in ids:
        arm, seed = id.split("-")
        made.append(run_files.instance(f"run[{id}]", axes={"arm": arm, "seed": seed}))
    return run_files.plan(*made, run_files.instance("table"), roles=roles)


GROUPS = {"arm": "group", "seed": "replicate"}
SIX = [f"{arm}-{seed}" for arm in ("near", "far") for seed in (1, 2, 3)]


@pytest.mark.parametrize(
    ("id", "names", "said"),
    [
        ("near/loss/x", "123", ""),
        ("near/loss/x", "12", "(1 of 3: 3)"),
        ("near/loss/x", "", "(3 of 3: 1, 2, 3)"),
        ("all/loss/x", "123", ""),
        ("all/loss/x", "23", "(1 of 3: 1)"),
        ("other/loss/x", "", ""),
        ("stats/near/x/empty-rate", "1", "(2 of 3: 2, 3)"),
        ("stats/far/x/empty-rate", "123", ""),
    ],
)
def test_a_cell_has_the_replicates_of_its_group(
    tmp_path: Path, id: str, names: str, said: str
) -> None:
    cell = seeded_cell(id, names, "run[near-1]")
    found = lacking(tmp_path, [cell], plan=arms(*SIX, roles=GROUPS))
    assert found == ([f"replicates of 1 cell are not there: {id} {said}"] if said else [])


def test_lost_replicates_stand_in_order(tmp_path: Path) -> None:
    cell = seeded_cell("near/loss/x", "", "run[near-1]")
    plan = arms(*(f"near-{seed}" for seed in "863927451"), roles=GROUPS)
    (said,) = lacking(tmp_path, [cell], plan=plan)
    assert said.endswith("near/loss/x (9 of 9: 1, 2, 3 and 6 more)")


@pytest.mark.parametrize(
    ("planned", "names", "whole"),
    [
        (["near-1"], "", True),
        (["near-1", "near-2"], "1", False),
        (["near-1", "near-2"], "12", True),
    ],
)
def test_a_single_replicate_needs_no_name(
    tmp_path: Path, planned: list[str], names: str, whole: bool
) -> None:
    cell = seeded_cell("near/loss/x", names, "run[near-1]")
    assert (lacking(tmp_path, [cell], plan=arms(*planned, roles=GROUPS)) == []) is whole


@pytest.mark.parametrize(
    ("id", "names", "whole"),
    [
        ("all/loss/x@near", "123", True),
        ("all/loss/x@near", "12", False),
        ("all/loss/x@far", "12", True),
        ("all/loss/x@far", "1", False),
        ("stats/all/x@far/empty-rate", "12", True),
        ("stats/all/x@near/empty-rate", "12", False),
    ],
)
def test_a_cell_has_the_replicates_of_its_setting(
    tmp_path: Path, id: str, names: str, whole: bool
) -> None:
    """The roles say which axis is which: here the first is the setting, which has 3 and 2 seeds."""
    plan = arms(*SIX[:-1], roles={"seed": "replicate"})
    assert (lacking(tmp_path, [seeded_cell(id, names, "run[near-1]")], plan=plan) == []) is whole


@pytest.mark.parametrize(("names", "whole"), [("123", True), ("12", False), ("1234", False)])
@pytest.mark.parametrize("named", [True, False])
def test_a_cell_of_no_step_has_all_replicates_of_some(
    tmp_path: Path, names: str, whole: bool, named: bool
) -> None:
    """Where other cells name theirs."""
    cells = [seeded_cell("all/mean/x", names)]
    cells += [seeded_cell("near/loss/x", "123", "run[near-1]")] if named else []
    found = lacking(tmp_path, cells, plan=arms(*SIX, roles=GROUPS))
    said = ["1 cell names no step of plan.json: all/mean/x"]
    assert found == ([] if whole or not named else said)


@pytest.mark.parametrize(
    ("orders", "seeds", "names", "whole"),
    [
        ("ab", "1", "", True),
        ("ab", "12", "12", True),
        ("ab", "12", "", False),
        ("a", "1", "", False),
        ("ab", "", "", False),
    ],
)
def test_what_is_pooled_over_an_axis_of_a_single_seed_names_no_replicate(
    tmp_path: Path, orders: str, seeds: str, names: str, whole: bool
) -> None:
    """Two orders of one seed have a range; of one order, or without a seed, there is none."""
    runs = [f"{order}-{seed}" for order in orders for seed in seeds or "1"]
    plan = arms(*runs, roles={"arm": "replicate", "seed": "replicate"})
    base = [run_files.instance(f"base[{seed}]", axes={"seed": seed}) for seed in seeds]
    plan = run_files.plan(*plan.instances, *base, roles=plan.roles)
    every = [f"{order}/{seed}" for order in orders for seed in seeds or "1"]
    measured = seeded_cell("all/loss/x", every if len(every) > 1 else [], "run[a-1]")
    found = lacking(tmp_path, [seeded_cell("all/range/x", names), measured], plan=plan)
    assert found == ([] if whole else ["1 cell names no step of plan.json: all/range/x"])


def test_a_step_that_is_not_planned_is_a_stray_one(tmp_path: Path) -> None:
    cell = seeded_cell("near/loss/x", "123", "run[near-9]")
    found = lacking(tmp_path, [cell], plan=arms(*SIX, roles=GROUPS))
    assert found == ["1 cell names no step of plan.json: near/loss/x"]


@pytest.mark.parametrize(("names", "whole"), [("123", True), ("13", False)])
def test_replicates_of_a_curve_are_those_of_its_line(
    tmp_path: Path, names: str, whole: bool
) -> None:
    """Other lines and other series may have more."""
    ref = LineRef(series="one", line="one")
    cell = Cell(id="near/loss/x", unit="loss", trajectory=ref, step="run[near-1]")
    points = [(0.0, 1.0)]
    one, two = (line_of(id, dict.fromkeys(seeds, points), "loss")
                for id, seeds in (("one", names), ("two", "123")))  # fmt: skip
    two.lines["one"] = two.lines["two"]
    expected = [expected_cell("near/loss/x:end", None, unit="loss")]
    found = lacking(tmp_path, [cell], expected, plan=arms(*SIX, roles=GROUPS), series=[one, two])
    said = ["replicates of 1 cell are not there: near/loss/x (1 of 3: 2)"]
    assert found == ([] if whole else said)


@pytest.mark.parametrize("lost", ["2", "3"])
def test_a_ratio_lacks_a_replicate_only_where_it_has_a_value(tmp_path: Path, lost: str) -> None:
    """Nothing is to be divided by in replicate 2."""
    step = "run[near-1]"

    def part(id: str, values: dict[str, float]) -> Cell:
        seeds = [SeedValue(seed=name, value=v) for name, v in values.items()]
        mean = sum(values.values()) / len(values)
        return Cell(id=id, unit="loss", value=mean, seeds=seeds, step=step)

    cells = [
        part("near/loss/a", {"1": 1.0, "2": 0.0, "3": 1.0}),
        part("near/loss/b", {"1": 1.0, "2": 0.0, "3": 1.0}),
        msgspec.structs.replace(
            part("near/loss/r", {name: 1.0 for name in "123" if name != lost}), unit="ratio"
        ),
    ]
    rule = Derived(formula="ratio", cells=["near/loss/a", "near/loss/b"])
    expected = [expected_cell(cell.id, None, unit=cell.unit) for cell in cells[:2]]
    expected.append(expected_cell("near/loss/r", None, unit="ratio", derived=rule))
    found = lacking(tmp_path, cells, expected, plan=arms(*SIX, roles=GROUPS))
    said = [f"replicates of 1 cell are not there: near/loss/r (1 of 3: {lost})"]
    assert found == ([] if lost == "2" else said)


def test_only_what_is_expected_and_was_run_has_replicates(tmp_path: Path) -> None:
    bare = seeded_cell("near/loss/x", "1", "run[near-1]")
    plan = arms(*SIX, roles=GROUPS)
    assert lacking(tmp_path, [bare], [], plan=plan) == []
    said = ["replicates of 1 cell are not there: near/loss/x (2 of 3: 2, 3)"]
    assert lacking(tmp_path, [bare], expectation([], present=[bare.id]), plan=plan) == said
    skipped = Cell(id=bare.id, unit="loss", not_run="no time", step="run[near-1]")
    assert lacking(tmp_path, [skipped], plan=plan) == []


# What the expectation declares.


def counted(id: str, label: str | None, k: int | None = 2, n: int | None = 4) -> Cell:
    return Cell(id=id, unit="percent", value=50.0, k=k, n=n,
                labels=f"labels.jsonl#{label}" if label else None)  # fmt: skip


def over_seeds(id: str, *parts: tuple[int | None, int | None, str | None]) -> Cell:
    seeds = [
        SeedValue(seed=str(i), value=50.0, k=k, n=n,
                  labels=f"labels.jsonl#{label}" if label else None)
        for i, (k, n, label) in enumerate(parts)
    ]  # fmt: skip
    return Cell(id=id, unit="percent", value=50.0, seeds=seeds)


COUNTS = "counts (k of n) of 1 cell are not there: "
ITEMS = "labels of single items of 1 cell are not there: "


@pytest.mark.parametrize(
    ("cell", "n", "labelled", "said"),
    [
        (counted("g/asr/x", "named"), 4, True, []),
        (counted("g/asr/x", "bare"), 4, True, [f"{ITEMS}g/asr/x"]),
        (counted("g/asr/x", None), 4, True, [f"{ITEMS}g/asr/x"]),
        (counted("g/asr/x", None), 4, False, []),
        (counted("g/asr/x", "named", k=None), 4, True, [f"{COUNTS}g/asr/x"]),
        (counted("g/asr/x", "named", n=None), 4, True, [f"{COUNTS}g/asr/x"]),
        (counted("g/asr/x", None, None, None), None, True, []),
        (over_seeds("g/asr/x", (2, 4, "named"), (2, 4, "named")), 4, True, []),
        (over_seeds("g/asr/x", (2, 4, "named"), (2, 4, "bare")), 4, True, [f"{ITEMS}g/asr/x"]),
        (over_seeds("g/asr/x", (2, 4, "named"), (None, 4, "named")), 4, True, [f"{COUNTS}g/asr/x"]),
        (Cell(id="g/asr/x", unit="percent", not_run="no time"), 4, True, []),
    ],
)  # fmt: skip
def test_counts_and_labels_where_the_expectation_has_them(
    tmp_path: Path, cell: Cell, n: int | None, labelled: bool, said: list[str]
) -> None:
    expected = [expected_cell(cell.id, "50", n=n, labelled=labelled)]
    assert lacking(tmp_path, [cell], expected) == said


@pytest.mark.parametrize(
    ("others", "excused"),
    [([], False), (["near/asr/x"], True), (["stats/near/x/empty-rate"], False),
     (["near/asr/x", "far/asr/x"], True), (["all/asr/y"], False)],
)  # fmt: skip
def test_what_is_pooled_over_groups_has_its_labels_in_its_parts(
    tmp_path: Path, others: list[str], excused: bool
) -> None:
    cells = [counted("all/asr/x", None), *(counted(id, "named") for id in others)]
    expected = [expected_cell(cell.id, "50", n=4, labelled=True) for cell in cells]
    found = lacking(tmp_path, cells, expected)
    assert found == ([] if excused else [f"{ITEMS}all/asr/x"])


def test_the_parts_of_what_is_pooled_are_not_excused(tmp_path: Path) -> None:
    cells = [counted("all/asr/x", None), counted("near/asr/x", None)]
    expected = [expected_cell(cell.id, "50", n=4, labelled=True) for cell in cells]
    assert lacking(tmp_path, cells, expected) == [f"{ITEMS}near/asr/x"]


def test_further_cells_that_are_to_be_there(tmp_path: Path) -> None:
    expected = expectation([], present=["g/loss/x", "g/loss/y", "g/loss/z"])
    found = lacking(tmp_path, [PLAIN], expected)
    assert found == ["not there beside the listed ones: 2 cells: g/loss/y, g/loss/z"]
