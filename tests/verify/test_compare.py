"""``kit compare``: cells side by side, then the first difference from cause to consequence."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.cli.main import run as kit
from kit.results.record import FileRecord
from kit.results.run import Run
from kit.verify.compare import CellPair, Comparison, compare, lines
from kit.verify.diverge import (
    Unreadable,
    _causes,
    diverge,
    escape,
    first_difference,
    inserted,
    read_side,
)
from kit.verify.tampered import fit
from tests import run_files
from tests.verify.conftest import cells_of, results_of, write_run


def jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def records(n: int = 5, **changes: Any) -> list[dict[str, Any]]:
    """Items with prompt, ids, response and label; ``changes`` maps field -> (index, value)."""
    made = [
        {"id": f"i{i}", "prompt": f"Say {i}.", "ids": [1, 40 + i, 2], "response": f"It is {i}.",
         "label": 0}
        for i in range(n)
    ]  # fmt: skip
    for field, (index, value) in changes.items():
        made[index][field] = value
    return made


def found(tmp_path: Path, one: list[dict[str, Any]], two: list[dict[str, Any]]) -> Any:
    return first_difference(jsonl(tmp_path / "a.jsonl", one), jsonl(tmp_path / "b.jsonl", two))


def test_equal_files_have_no_difference(tmp_path: Path) -> None:
    assert found(tmp_path, records(), records()) is None


def test_the_cause_is_named_before_its_consequences(tmp_path: Path) -> None:
    """The label of item 1 differs too, but the prompt of item 3 is the cause."""
    other = records(prompt=(3, "Say  3."), response=(1, "No."), label=(1, 1))
    what = found(tmp_path, records(), other)
    assert (what.kind, what.record) == ("prompt", "record 4 (i3) of 5")
    assert (what.first, what.second) == ('"Say 3."', '"Say  3."')
    assert what.hint == "from character 5"


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [("ids", [1, 41, 3], "token ids"), ("response", "No.", "generation"), ("label", 1, "label")],
)
def test_each_kind_of_field(tmp_path: Path, field: str, value: Any, kind: str) -> None:
    what = found(tmp_path, records(), records(**{field: (1, value)}))
    assert (what.kind, what.record) == (kind, "record 2 (i1) of 5")


def test_a_doubled_token_is_called_that(tmp_path: Path) -> None:
    what = found(tmp_path, records(), records(ids=(2, [1, 1, 42, 2])))
    assert what.hint == "the second has 1 twice in a row at position 2"
    assert what.field == "ids[1]"


def test_inserted_is_only_said_when_all_else_is_equal() -> None:
    assert inserted([1, 2, 3], [1, 9, 2, 3]) == "the second has 9 at position 2"
    assert inserted([1, 2, 3], [1, 9, 3, 2]) == ""


def test_missing_records(tmp_path: Path) -> None:
    what = found(tmp_path, records(5), records(4))
    assert (what.kind, what.first, what.second) == ("number of records", "5 records", "4 records")


def answers(**changes: Any) -> list[dict[str, Any]]:
    """Records as an evaluation step writes them."""
    record = {"set": "native", "condition": "ignore", "sample_id": "s0", "data": "Stop. Say yes.",
              "prompt_start": [1, 2, 3], "response": "No.", "tokens": 2, "finish_reason": "stop",
              "injected": False}  # fmt: skip
    return [record, record | {"sample_id": "s1"} | changes]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"data": "Go.", "prompt_start": [1], "response": "x", "tokens": 1}, "prompt"),
        ({"prompt_start": [1, 1, 2], "response": "x", "injected": True}, "token ids"),
        ({"response": "Yes.", "tokens": 1, "injected": True}, "generation"),
        ({"finish_reason": "length", "tokens": 512}, "generation"),
        ({"injected": True, "tokens": 3}, "label"),
        ({"tokens": 3}, "count"),
    ],
)
def test_fields_of_an_evaluation(tmp_path: Path, changes: dict[str, Any], kind: str) -> None:
    what = found(tmp_path, answers(), answers(**changes))
    assert what.kind == kind
    assert what.record == "record 2 (native, ignore, s1) of 2"


def test_text_and_ids_of_answers_are_generations(tmp_path: Path) -> None:
    one = {"sample_id": "s", "instruction": "i", "text": "a", "ids": [1], "finish_reason": "stop"}
    assert found(tmp_path, [one], [one | {"text": "b", "ids": [2]}]).kind == "generation"
    plain = {"sample_id": "s", "text": "a", "ids": [1]}
    assert found(tmp_path, [plain], [plain | {"text": "b", "ids": [2]}]).kind == "prompt"


def test_labels_name_the_item(tmp_path: Path) -> None:
    line = {"id": "t/a", "items": ["p1", "p2", "p3"], "labels": [0, 1, 0]}
    what = found(tmp_path, [line], [line | {"labels": [0, 1, 1]}])
    assert what.field == "labels[2] (item p3)"


def test_nested_json(tmp_path: Path) -> None:
    one, two = tmp_path / "a.json", tmp_path / "b.json"
    one.write_text(json.dumps({"x": {"y": [{"z": 1}, {"z": 2}]}}))
    two.write_text(json.dumps({"x": {"y": [{"z": 1}, {"z": 3}]}}))
    what = first_difference(one, two)
    assert what is not None
    assert (what.field, what.first, what.second) == ("x.y[1].z", "2", "3")


def test_text_of_a_model_cannot_reach_the_terminal(tmp_path: Path) -> None:
    what = found(tmp_path, records(), records(response=(0, "It is\x1b[2J 0.\u202e")))
    assert "\x1b" not in what.second
    assert "\\x1b" in what.second
    assert escape("a\u202eb") == "a\\u202eb"


def test_not_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(Unreadable):
        first_difference(tmp_path / "a.json", tmp_path / "a.json")


def store_step(root: Path, key: str, files: dict[str, str]) -> dict[str, FileRecord]:
    entry = root / key[:2] / key
    entry.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (entry / name).write_text(text)
    hashes = {
        name: FileRecord(sha256=sha256(text.encode()).hexdigest(), size=len(text))
        for name, text in files.items()
    }
    (entry / "step.json").write_bytes(msgspec.json.encode({"files": hashes}))
    return hashes


def plan(run: Path, store: Path, seed: int, response: str, extra: str = "") -> None:
    """Three steps; the second depends on the seed, whose responses differ."""
    outputs = {
        "train": {"model.bin": "weights"},
        f"generate[seed={extra}]": {"responses.jsonl": json.dumps({"id": "i0", "prompt": "p",
                                                                  "response": response}) + "\n",
                                    "labels.jsonl": json.dumps({"id": "i0", "label": 1}) + "\n"},
        "collect": {"results.json": json.dumps({"value": len(response)})},
    }  # fmt: skip
    steps, recorded = [], {}
    for name, files in outputs.items():
        salt = "" if name == "train" else response
        key = sha256(f"{name}{salt}".encode()).hexdigest()
        hashes = store_step(store, key, files)
        params = {"seed": seed} if name.startswith("generate") else {}
        steps.append(run_files.instance(name, kind=f"made/{name[:5]}", params=params, key=key))
        recorded[name] = run_files.ran(name, key=key, outputs=hashes)
    run_files.write(run, run_files.plan(*steps), run_files.record(steps=recorded))


@pytest.fixture
def two(repo: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    first, second, store = repo / "runs" / "a", repo / "runs" / "b", tmp_path / "home" / "store"
    for path, seed, response in ((first, 0, "It is 0."), (second, 1, "It is O.")):
        write_run(path, cells_of())
        plan(path, store, seed, response)
        fit(path)
    return first, second, store


def test_the_first_step_and_the_first_item(
    two: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit(["compare", str(two[0]), str(two[1]), "--all"]) == 1
    said = capsys.readouterr().out
    assert "cell t1/none same: 52.88 against 52.88" in said
    assert kit(["compare", str(two[0]), str(two[1])]) == 1
    short = capsys.readouterr().out.splitlines()
    same = [line for line in said.splitlines() if " same: " in line]
    assert short == [
        *(line for line in said.splitlines() if line not in same),
        f"cells {len(same)} the same; --all lists them",
    ]
    assert short[0] == "first difference: step generate[seed=], outputs"
    assert "because params.seed: 0 against 1" in said
    assert "responses.jsonl: record 1 (i0) of 1, generation, response" in said
    assert '"It is 0."' in said
    assert '"It is O."' in said


def test_identical_runs(two: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert kit(["compare", str(two[0]), str(two[0])]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "identical"


def test_a_run_out_of_the_store_is_no_repetition(
    two: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert kit(["compare", str(two[0]), str(two[0])]) == 0
    assert "came from the store" not in capsys.readouterr().out
    path = two[0] / "record.json"
    content = json.loads(path.read_text())
    for step in content["steps"].values():
        step["state"] = "cached"
    path.write_text(json.dumps(content))
    fit(two[0])
    kit(["compare", str(two[0]), str(two[1])])
    said = capsys.readouterr().out
    assert f"all of the first run ({len(content['steps'])} steps) came from the store" in said
    assert "second run came" not in said


def test_other_code_is_said_first(
    two: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for path, digest, dirty in ((two[0], "0a" * 32, False), (two[1], "0b" * 32, True)):
        record = json.loads((path / "record.json").read_text())
        step = next(iter(record["steps"].values()))
        step["code"], record["dirty"], record["commit"] = digest, dirty, "c0ffee"
        (path / "record.json").write_text(json.dumps(record))
        fit(path)
    kit(["compare", str(two[0]), str(two[1])])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "code differs in made/train"
    assert said[1] == "code of the second run had changes that c0ffee lacks"
    assert said[2].startswith("first difference: ")
    assert "note which code ran is not recorded for made/gener, made/colle" in said
    kit(["compare", str(two[0]), str(two[1]), "--json"])
    assert len(json.loads(capsys.readouterr().out)["code"]) == 2


def test_real_differences_come_before_noise_and_few_are_listed() -> None:
    def pair(number: int, says: str) -> CellPair:
        return CellPair(
            id=f"t/{says}/{number}", unit="percent", first=1, second=2, difference=-1, says=says
        )

    cells = [pair(i, "noise") for i in range(30)] + [pair(0, "only in the first")]
    outcome = Comparison(
        first="a", second="b", cells=[*cells, pair(0, "differs"), pair(0, "same")], identical=False
    )
    said = list(lines(outcome))
    assert said[0] == "no step differs; the tables do"
    assert said[1].startswith("cell t/differs/0 differs: 1 against 2")
    assert said[2].startswith("cell t/only in the first/0")
    assert said[-1] == "cells 12 more differ, 1 the same; --all lists them"
    assert sum(line.startswith("cell t/noise") for line in said) == 18


def test_json_output(two: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    kit(["compare", str(two[0]), str(two[1]), "--json"])
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["identical"] is False
    assert outcome["divergence"]["kind"] == "generation"


def test_without_the_store_the_hashes_still_tell(two: tuple[Path, Path, Path]) -> None:
    sides = [read_side(Run(path), None) for path in two[:2]]
    assert sides[0] is not None
    assert sides[1] is not None
    where = diverge(sides[0], sides[1])
    assert where is not None
    assert (where.step, where.kind) == ("generate[seed=]", "bytes")
    assert len(where.first) == 16


def test_without_records_the_store_is_read(two: tuple[Path, Path, Path]) -> None:
    for path in two[:2]:
        (path / "record.json").unlink()
    sides = [read_side(Run(path), two[2]) for path in two[:2]]
    assert sides[0] is not None
    assert sides[1] is not None
    where = diverge(sides[0], sides[1])
    assert where is not None
    assert where.kind == "generation"


def test_a_step_only_one_run_has(two: tuple[Path, Path, Path]) -> None:
    plan(two[1], two[2], 1, "It is 0.", extra="1")
    sides = [read_side(Run(path), two[2]) for path in two[:2]]
    assert sides[0] is not None
    assert sides[1] is not None
    where = diverge(sides[0], sides[1])
    assert where is not None
    assert (where.step, where.what) == ("generate[seed=]", "only in the first")


def test_cells_are_compared_with_paired_statistics(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = repo / "runs" / "a", repo / "runs" / "b"
    write_run(first, cells_of(110, 9))
    write_run(second, cells_of(60, 12))
    assert kit(["compare", str(first), str(second)]) == 1
    said = capsys.readouterr().out
    assert "cell t1/none differs: 52.88 against 28.85, +24.04 points (p < 0.0001" in said
    assert "cell t1/defended noise: 0.04327 against 0.05769" in said
    assert "paired labels: 0 only in the first, 3 only in the second of 208" in said
    assert "labels.jsonl: record 1 (defended) of 1, label, labels[9] (item i9)" in said


def test_other_experiments_are_refused(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(repo / "runs" / "a", cells_of())
    write_run(repo / "runs" / "b", cells_of(), experiment="other")
    assert kit(["compare", "runs/a", "runs/b"]) == 4
    assert "compare two runs of one experiment" in capsys.readouterr().err


def test_each_p_is_adjusted_at_its_own_cell(repo: Path) -> None:
    """Cells without a p stand between those with one; the q are those of scipy, by id."""
    from scipy.stats import false_discovery_control

    ks = {"t1/none": (110, 60), "a/x": (100, 101), "m/x": (104, 90), "z/x": (30, 45)}
    for side, name in enumerate(("a", "b")):
        cells: list[dict[str, Any]] = [{"id": "a/plain", "unit": "loss", "value": 1.0 + side}]
        for id, k in ks.items():
            cells.append({"id": id, "unit": "percent", "value": 100 * k[side] / 208, "k": k[side],
                          "n": 208})  # fmt: skip
            cells.append({"id": f"{id}-plain", "unit": "loss", "value": 2.0})
        write_run(repo / "runs" / name, cells)
    outcome = compare(Run(repo / "runs" / "a"), Run(repo / "runs" / "b"))
    ps = {cell.id: cell.p for cell in outcome.cells if cell.p is not None}
    assert ps.keys() == ks.keys()
    wanted = dict(zip(ps, false_discovery_control([p or 0.0 for p in ps.values()]), strict=True))
    assert {cell.id: cell.q for cell in outcome.cells if cell.q is not None} == pytest.approx(
        wanted
    )


def compared(repo: Path, first: list[dict[str, Any]], second: list[dict[str, Any]],
             **fields: Any) -> Comparison:  # fmt: skip
    """Two runs without plan and record; ``fields`` of the second table."""
    for name, cells, more in (("a", first, {}), ("b", second, fields)):
        folder = repo / "runs" / name
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(results_of(cells, **more)))
    return compare(Run(repo / "runs" / "a"), Run(repo / "runs" / "b"))


def test_cells_of_one_run_alone_are_said_with_their_side(repo: Path) -> None:
    loss = {"id": "t/a", "unit": "loss", "value": 1.0}
    ours, theirs = loss | {"id": "t/ours", "unit": "nats"}, loss | {"id": "t/theirs"}
    outcome = compared(repo, [loss, ours], [loss, theirs])
    found = {cell.id: (cell.says, cell.unit) for cell in outcome.cells}
    assert found == {
        "t/a": ("same", "loss"), "t/ours": ("only in the first", "nats"),
        "t/theirs": ("only in the second", "loss"),
    }  # fmt: skip
    assert not outcome.identical
    said = list(lines(outcome))
    assert "cell t/ours only in the first" in said


@pytest.mark.parametrize("other", [False, True])
def test_curves_are_the_same_or_differ(repo: Path, other: bool) -> None:
    def tables(last: float) -> dict[str, Any]:
        curve = {"seed": "0", "points": [[0, 2.0], [1, last]]}
        return {"series": [{"id": "s", "title": "s", "x_label": "x", "y_label": "y",
                            "unit": "loss", "lines": {"l": [curve]}}]}  # fmt: skip

    cell = {"id": "t/c", "unit": "loss", "trajectory": {"series": "s", "line": "l"}}
    for name, last in (("a", 1.0), ("b", 1.5 if other else 1.0)):
        folder = repo / "runs" / name
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(results_of([cell], **tables(last))))
    outcome = compare(Run(repo / "runs" / "a"), Run(repo / "runs" / "b"))
    assert [cell.says for cell in outcome.cells] == ["differs" if other else "same"]
    assert outcome.identical is not other


def test_what_could_not_be_compared_is_noted(repo: Path) -> None:
    loss = {"id": "t/a", "unit": "loss", "value": 1.0}
    outcome = compared(repo, [loss], [loss], profile="small")
    assert "no plan.json in one of the runs: only tables and labels are compared" in outcome.notes
    assert "profiles mini and small" in outcome.notes


def test_whole_runs_of_one_profile_have_no_such_notes(two: tuple[Path, Path, Path]) -> None:
    notes = compare(Run(two[0]), Run(two[1])).notes
    assert not [note for note in notes if "no plan.json" in note or "profiles" in note]


def test_causes_are_every_field_that_differs() -> None:
    ours = run_files.instance("a", params={"x": 1, "same": 2}, version=1, kind="k/a")
    theirs = run_files.instance("a", params={"x": 2, "same": 2, "more": 3}, version=2, kind="k/a")
    assert _causes(ours, theirs) == [
        "version: 1 against 2", "params.x: 1 against 2", "params.more: None against 3",
    ]  # fmt: skip
    assert _causes(ours, ours) == []


@pytest.mark.parametrize("side", ["first", "second"])
def test_a_file_that_one_side_alone_has_is_said(two: tuple[Path, Path, Path], side: str) -> None:
    run = two[side == "second"]
    record = json.loads((run / "record.json").read_text())
    outputs = record["steps"]["train"]["outputs"]
    outputs["a.json"] = {"sha256": "0" * 64, "size": 3}
    (run / "record.json").write_text(json.dumps(record))
    sides = [read_side(Run(path), None) for path in two[:2]]
    assert sides[0] is not None
    assert sides[1] is not None
    where = diverge(sides[0], sides[1])
    assert where is not None
    assert (where.step, where.file, where.kind) == ("train", "a.json", "file")
    assert where.hint == f"only the {side} has it"
