"""Two runs in words: what a pair of cells is called, where the runs part, which code ran."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.results.run import Run
from kit.verify import compare as comparing
from kit.verify.compare import CellPair, Comparison, compare, lines
from kit.verify.diverge import Divergence
from kit.verify.measurement import Measurement
from tests.verify.conftest import results_of


def pair(id: str = "t/a", **fields: Any) -> CellPair:
    defaults: dict[str, Any] = {
        "unit": "percent", "first": 1.0, "second": 3.0, "difference": -2.0, "says": "noise",
    }  # fmt: skip
    return CellPair(id=id, **(defaults | fields))


def outcome(*cells: CellPair, **fields: Any) -> Comparison:
    return Comparison(first="a", second="b", cells=list(cells), **({"identical": False} | fields))


@pytest.mark.parametrize("lacking", ["first", "second", "difference"])
def test_a_pair_that_lacks_a_number_has_its_word_alone(lacking: str) -> None:
    made = pair(says="only in the second", p=0.3, method="m", **{lacking: None})
    assert list(lines(outcome(made)))[1:] == ["cell t/a only in the second"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "cell t/a noise: 1 against 3, -2 points"),
        ({"p": 0.25, "method": "by rank"},
         "cell t/a noise: 1 against 3, -2 points (p = 0.25; by rank)"),
        ({"p": 0.25, "method": "m", "says": "same"}, "cell t/a same: 1 against 3, -2 points"),
        ({"difference": 0.0, "second": 1.0, "unit": "loss"}, "cell t/a noise: 1 against 1"),
        ({"difference": 2.0, "second": -1.0, "unit": "loss"}, "cell t/a noise: 1 against -1, +2"),
    ],
)  # fmt: skip
def test_a_pair_in_words(fields: dict[str, Any], text: str) -> None:
    assert list(lines(outcome(pair(**fields)), every=True))[1:] == [text]


ORDER = ["differs", "only in the first", "noise", "same"]


def test_real_differences_come_first_and_equal_cells_last() -> None:
    cells = [pair(f"t/{i}", says=says) for i, says in enumerate(reversed(ORDER))]
    said = [line.split(" ", 2)[2] for line in lines(outcome(*cells), every=True)][1:]
    assert [next(says for says in ORDER if text.startswith(says)) for text in said] == ORDER


@pytest.mark.parametrize(
    ("apart", "same", "last"),
    [
        (3, 0, "cell"), (3, 1, "cells 1 the same; --all lists them"), (20, 0, "cell"),
        (20, 2, "cells 2 the same; --all lists them"),
        (21, 0, "cells 1 more differ, 0 the same; --all lists them"),
    ],
)  # fmt: skip
def test_equal_cells_are_counted_and_others_listed_up_to_twenty(
    apart: int, same: int, last: str
) -> None:
    cells = [pair(f"t/{i}", says="same" if i < same else "noise") for i in range(apart + same)]
    said = list(lines(outcome(*cells)))
    assert said[-1].startswith(last)
    assert sum(line.startswith("cell ") for line in said) == min(apart, 20)
    every = list(lines(outcome(*cells), every=True))
    assert sum(line.startswith("cell ") for line in every) == len(cells)
    assert not every[-1].endswith("lists them")


def test_code_comes_first_and_notes_before_cells() -> None:
    made = outcome(pair(), code=["differs in x"], notes=["a", "b"], identical=False)
    assert [line.split(" ")[0] for line in lines(made)] == ["code", "no", "note", "note", "cell"]
    assert list(lines(outcome(identical=True))) == ["identical"]


def test_where_the_runs_part() -> None:
    whole = Divergence(step="train", what="outputs", causes=["x: 1 against 2", "y"], file="a.json",
                       record="record 2", kind="label", field="label", hint="from character 5",
                       first="1", second="0")  # fmt: skip
    assert list(lines(outcome(divergence=whole))) == [
        "first difference: step train, outputs", "  because x: 1 against 2", "  because y",
        "  a.json: record 2, label, label", "  from character 5", "  first:  1", "  second: 0",
    ]  # fmt: skip
    bare = Divergence(step="train", what="inputs")
    assert list(lines(outcome(divergence=bare))) == ["first difference: step train, inputs"]
    sided = Divergence(step="train", what="outputs", file="a", kind="missing", second="0")
    assert list(lines(outcome(divergence=sided)))[1:] == [
        "  a: missing", "  first:  ", "  second: 0"
    ]  # fmt: skip


def run(path: Path, cells: list[dict[str, Any]], **fields: Any) -> Run:
    path.mkdir(parents=True)
    (path / "results.json").write_text(json.dumps(results_of(cells, **fields)))
    return Run(path)


LOSS = {"id": "t/a", "unit": "loss", "value": 1.0}


def seeds(*values: float) -> dict[str, Any]:
    of = [{"seed": str(i), "value": value} for i, value in enumerate(values)]
    return LOSS | {"value": sum(values) / len(values), "seeds": of}


def test_each_run_is_read_with_its_own_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(comparing, "read_side", lambda run, store: read.append((run, store)))
    first, second = run(tmp_path / "a", [LOSS]), run(tmp_path / "b", [LOSS])
    compare(first, second, (tmp_path / "one", tmp_path / "two"))
    compare(first, second)
    assert read == [(first, tmp_path / "one"), (second, tmp_path / "two"), (first, None),
                    (second, None)]  # fmt: skip


@pytest.mark.parametrize("sides", [(None, object()), (object(), None), (object(), object())])
def test_plans_are_compared_where_both_runs_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: tuple[object, object]
) -> None:
    left = iter(sides)
    asked = []
    monkeypatch.setattr(comparing, "read_side", lambda run, store: next(left))
    monkeypatch.setattr(comparing, "diverge", lambda *both: asked.append(both))
    made = compare(run(tmp_path / "a", [LOSS]), run(tmp_path / "b", [LOSS]))
    assert asked == ([] if None in sides else [sides])
    assert any("no plan.json" in note for note in made.notes) is (None in sides)


@pytest.mark.parametrize(
    ("p", "says"), [(None, "differs"), (0.049, "differs"), (0.05, "noise"), (0.9, "noise")]
)
def test_a_difference_that_chance_explains_is_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, p: float | None, says: str
) -> None:
    made = SimpleNamespace(p=p, method="m")
    asked = []

    def contrast(here: Any, there: Any, at: Fraction) -> SimpleNamespace:
        asked.append((float(here.value), float(there.value), at))
        return made

    monkeypatch.setattr(comparing, "contrast", contrast)
    (cell,) = compare(
        run(tmp_path / "a", [LOSS]), run(tmp_path / "b", [LOSS | {"value": 3.0}])
    ).cells
    assert (cell.says, cell.p, cell.method) == (says, p, "m")
    assert (cell.first, cell.second, cell.difference) == (1.0, 3.0, -2.0)
    assert asked == [(1.0, 3.0, Fraction(0))]


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [(seeds(1.0, 2.0), seeds(1.0, 2.0), True), (seeds(1.0, 2.0), seeds(0.5, 2.5), False),
     (seeds(1.0, 2.0), seeds(1.0, 3.0), False), (LOSS, LOSS, True)],
)  # fmt: skip
def test_cells_are_the_same_when_every_seed_is(
    tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], same: bool
) -> None:
    made = compare(run(tmp_path / "a", [ours]), run(tmp_path / "b", [theirs]))
    assert (made.cells[0].says == "same") is same
    assert made.identical is same
    assert (made.divergence is None) is same


@pytest.mark.parametrize("name", ["labels.jsonl", "results.json"])
def test_without_plans_the_tables_tell_where_runs_part(tmp_path: Path, name: str) -> None:
    first, second = run(tmp_path / "a", [LOSS]), run(tmp_path / "b", [LOSS | {"value": 3.0}])
    for side, made in enumerate((first, second)):
        labels = side if name == "labels.jsonl" else 1
        line = {"id": "x", "items": ["i"], "labels": [labels]}
        (made.path / "labels.jsonl").write_text(json.dumps(line) + "\n")
    divergence = compare(first, second).divergence
    assert divergence is not None
    assert (divergence.step, divergence.file) == ("(run directory)", name)


def coded(code: dict[str, set[str]], dirty: bool | None = None, commit: str | None = None) -> Any:
    record = None if dirty is None else SimpleNamespace(dirty=dirty, commit=commit)
    return SimpleNamespace(code=code, record=record)


@pytest.mark.parametrize(
    ("first", "second", "said", "noted"),
    [
        (coded({"k/a": {"1"}}), coded({"k/a": {"1"}}), [], []),
        (coded({"k/a": {"1"}}), coded({"k/a": {"2"}}), ["differs in k/a"], []),
        (coded({"k/a": {"1"}}), coded({"k/b": {"2"}}), [], []),
        (coded({"k/a": {""}}), coded({"k/a": {"2"}}), [], ["not recorded for k/a"]),
        (coded({"k/a": {"1"}}), coded({"k/a": {"", "1"}}), [], ["not recorded for k/a"]),
        (coded({}, True, "abc"), coded({}, False, "abc"), ["first run had changes that abc"], []),
        (coded({}, False), coded({}, True), ["second run had changes that no commit"], []),
    ],
)
def test_which_code_ran(first: Any, second: Any, said: list[str], noted: list[str]) -> None:
    notes: list[str] = []
    made = comparing._code(first, second, notes)
    assert [wanted in text for wanted, text in zip(said, made, strict=True)] == [True] * len(said)
    assert [wanted in text for wanted, text in zip(noted, notes, strict=True)] == [True] * len(
        noted
    )


@pytest.mark.parametrize("turned", [False, True])
def test_a_number_on_a_single_side_differs(turned: bool) -> None:
    sides = [Measurement("t/a", "loss", value, None, None, (), None, ())
             for value in (None, Fraction(1))]  # fmt: skip
    made = comparing._pair(*(reversed(sides) if turned else sides))
    assert (made.says, made.first, made.second) == ("differs", None, None)
