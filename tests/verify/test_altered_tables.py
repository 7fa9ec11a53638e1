"""What the self-test plants into tables and run directories, each alone: what changes, what not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kit.results.files import LABELS, RECORD, RESULTS
from kit.results.ids import EXTRA
from kit.results.labels import Labels
from kit.results.types import Cell, SeedValue
from kit.verify import tampered
from kit.verify.core import Subject
from kit.verify.plants import (
    Plant,
    duplicated_seed,
    flipped,
    other_unit,
    swapped,
    wrong_n,
)
from kit.verify.tampered import TAMPERINGS
from tests.verify.builders import (
    expectation,
    expected_cell,
    labels,
    memory,
    seeded,
    seeded_shares,
    share,
    table,
    trajectory_cell,
)


def subject(cells: Sequence[Cell], listed: Sequence[str] = (), *lines: Labels) -> Subject:
    expected = [expected_cell(id) for id in listed or [cell.id for cell in cells]]
    return Subject(expected=expectation(expected), results=table(cells), labels=memory(*lines))


def planted(plant: Plant, cell: Cell, *lines: Labels) -> Cell | None:
    """The cell after the plant; None where there is nothing to alter."""
    other = share("t/other", 3, 7, labels="kept")
    altered = plant(subject([cell, other], (), *lines), cell.id)
    if altered is None:
        return None
    first, second = altered.results.cells
    assert second == other
    assert first.id == cell.id
    return first


@pytest.mark.parametrize(("unit", "whole"), [("percent", 100.0), ("fraction", 1.0)])
@pytest.mark.parametrize(
    ("k", "n", "after"), [(9, 208, 9), (0, 3, 0), (5, 5, 4), (4, 5, 4), (2, 2, 1)]
)
def test_one_item_fewer(unit: str, whole: float, k: int, n: int, after: int) -> None:
    made = planted(wrong_n, share("t/a", k, n, unit, labels="a"))
    assert made is not None
    assert (made.k, made.n, made.labels) == (after, n - 1, None)
    assert made.value == pytest.approx(whole * after / (n - 1))


def test_the_only_item_leaves_no_value() -> None:
    made = planted(wrong_n, share("t/a", 1, 1))
    assert made is not None
    assert (made.k, made.n, made.value) == (0, 0, None)


@pytest.mark.parametrize("own", [{}, {"k": 9, "n": 20}])
def test_one_item_fewer_on_every_seed(own: dict[str, int]) -> None:
    """Also where the cell has counts of its own beside its seeds."""
    seeds = [SeedValue(seed=str(i), value=100.0 * k / 10, k=k, n=10, labels=f"l{i}")
             for i, k in enumerate((0, 4, 10))]  # fmt: skip
    made = planted(wrong_n, Cell(id="t/a", unit="percent", value=140 / 3, seeds=seeds, **own))  # type: ignore[arg-type]
    assert made is not None
    assert [(s.seed, s.k, s.n, s.labels) for s in made.seeds] == [
        ("0", 0, 9, None), ("1", 4, 9, None), ("2", 9, 9, None)
    ]  # fmt: skip
    assert [s.value for s in made.seeds] == pytest.approx([0.0, 400 / 9, 100.0])
    assert made.value == pytest.approx((0 + 400 / 9 + 100) / 3)
    assert (made.k, made.n) == (None, None)


def test_seeds_of_one_item_are_left_with_none() -> None:
    made = planted(wrong_n, seeded_shares("t/a", [1, 0], 1))
    assert made is not None
    assert [(s.k, s.n, s.value) for s in made.seeds] == [(0, 0, 0.0), (0, 0, 0.0)]


def mixed(**second: Any) -> Cell:
    seeds = [SeedValue(seed="0", value=50.0, k=1, n=2), SeedValue(seed="1", value=50.0, **second)]
    return Cell(id="t/a", unit="percent", value=50.0, seeds=seeds)


def labelled(*names: str | None) -> Cell:
    seeds = [SeedValue(seed=str(i), value=9.0 * i, labels=name) for i, name in enumerate(names)]
    return Cell(id="t/a", unit="percent", value=4.5, seeds=seeds)


ABSENT = [
    (wrong_n, Cell(id="t/a", unit="percent", not_run="too dear")),
    (wrong_n, share("t/a", 1, 2, not_run="too dear")),
    (wrong_n, Cell(id="t/a", unit="percent", value=4.0)),
    (wrong_n, Cell(id="t/a", unit="percent", value=4.0, n=50)),
    (wrong_n, Cell(id="t/a", unit="percent", value=4.0, k=2)),
    (wrong_n, seeded("t/a", [1.0, 2.0])),
    (wrong_n, mixed()),
    (wrong_n, mixed(n=2)),
    (wrong_n, mixed(k=0, n=0)),
    (other_unit, Cell(id="t/a", unit="loss", value=1.0)),
    (other_unit, Cell(id="t/a", unit="percent", value=0.0)),
    (other_unit, Cell(id="t/a", unit="percent")),
    (swapped, trajectory_cell("t/a", "percent")),
    (swapped, Cell(id="t/a", unit="percent", value=4.0, not_run="too dear")),
    (swapped, Cell(id="t/a", unit="loss", value=4.0)),
    (swapped, share("t/a", 3, 7)),
    (duplicated_seed, share("t/a", 3, 7, labels="kept")),
    (duplicated_seed, seeded("t/a", [1.0, 2.0])),
    (duplicated_seed, labelled(None, "l1")),
    (flipped, Cell(id="t/a", unit="loss", value=4.0)),
    (flipped, Cell(id="t/a", unit="percent", not_run="too dear")),
    (flipped, share("t/a", 3, 7, not_run="too dear")),
]


@pytest.mark.parametrize(("plant", "cell"), ABSENT)
def test_nothing_to_alter(plant: Plant, cell: Cell) -> None:
    assert planted(plant, cell) is None


@pytest.mark.parametrize("plant", [wrong_n, other_unit, swapped, duplicated_seed, flipped])
def test_a_cell_that_is_not_there(plant: Plant) -> None:
    assert plant(subject([share("t/a", 1, 2), share("t/b", 2, 2)]), "t/c") is None


def test_seeds_of_two_items_are_left_with_a_whole_one() -> None:
    made = planted(wrong_n, seeded_shares("t/a", [1, 2, 0], 2))
    assert made is not None
    assert [s.value for s in made.seeds] == [100.0, 100.0, 0.0]


@pytest.mark.parametrize(("unit", "other"), [("percent", "fraction"), ("fraction", "percent")])
@pytest.mark.parametrize("cell", [share("t/a", 1, 2), seeded_shares("t/a", [0, 0], 9)])
def test_the_unit_alone_is_exchanged(unit: str, other: str, cell: Cell) -> None:
    given = Cell(id=cell.id, unit=unit, value=cell.value, k=cell.k, n=cell.n, seeds=cell.seeds)
    made = planted(other_unit, given)
    assert made is not None
    assert (made.unit, made.value, made.seeds) == (other, given.value, given.seeds)


ROWS = [
    share("t/a", 1, 4), share("t/b", 1, 4), Cell(id="t/c", unit="loss", value=3.0),
    share("t/unlisted", 3, 4), Cell(id="t/d", unit="percent"), share("t/e", 2, 4),
    Cell(id="t/gone", unit="percent", value=9.0, not_run="too dear"), share("t/f", 4, 4),
]  # fmt: skip


@pytest.mark.parametrize(
    ("id", "other"), [("t/a", "t/e"), ("t/b", "t/e"), ("t/e", "t/f"), ("t/f", "t/a")]
)
def test_rows_change_places_with_the_next_that_is_listed_and_differs(id: str, other: str) -> None:
    """Of the same unit, measured, with another value; after the last comes the first."""
    listed = [cell.id for cell in ROWS if cell.id != "t/unlisted"]
    altered = swapped(subject(ROWS, listed), id)
    assert altered is not None
    before = {cell.id: cell.value for cell in ROWS}
    after = {cell.id: cell.value for cell in altered.results.cells}
    assert after == before | {id: before[other], other: before[id]}


@pytest.mark.parametrize("count", [2, 3])
def test_the_second_seed_is_the_first_once_more(count: int) -> None:
    values = [10.0, 20.0, 60.0][:count]
    seeds = [SeedValue(seed=f"s{i}", value=v, labels=f"l{i}") for i, v in enumerate(values)]
    made = planted(duplicated_seed, Cell(id="t/a", unit="percent", value=1.0, seeds=seeds))
    assert made is not None
    assert [(s.seed, s.value, s.labels) for s in made.seeds] == [
        ("s0", 10.0, "l0"), ("s1", 10.0, "l0"), ("s2", 60.0, "l2")
    ][:count]  # fmt: skip
    assert made.value == pytest.approx((10 + 10 + (60 if count == 3 else 0)) / count)


def test_the_labels_of_the_second_seed_are_not_asked() -> None:
    made = planted(duplicated_seed, labelled("l0", None))
    assert made is not None
    assert [(s.value, s.labels) for s in made.seeds] == [(0.0, "l0"), (0.0, "l0")]


@pytest.mark.parametrize(("unit", "whole"), [("percent", 100.0), ("fraction", 1.0)])
def test_success_counted_as_failure(unit: str, whole: float) -> None:
    given = share("t/a", 1, 4, unit, labels="a")
    altered = flipped(subject([given], (), labels("a", "1000")), "t/a")
    assert altered is not None
    (made,) = altered.results.cells
    assert (made.k, made.n, made.value) == (3, 4, 0.75 * whole)
    assert made.labels is not None
    assert altered.labels.get(made.labels).labels == [0, 1, 1, 1]
    assert altered.labels.get("a").labels == [1, 0, 0, 0]


def test_success_counted_as_failure_on_seeds_and_without_counts() -> None:
    seeds = [
        SeedValue(seed="0", value=25.0, k=1, n=4, labels="a"),
        SeedValue(seed="1", value=40.0, k=2),
        SeedValue(seed="2", value=10.0, n=9),
    ]
    given = Cell(id="t/a", unit="percent", seeds=seeds)
    made = planted(flipped, given, labels("a", "0100"))
    assert made is not None
    assert [(s.value, s.k, s.n) for s in made.seeds] == [
        (75.0, 3, 4), (60.0, 2, None), (90.0, None, 9)
    ]  # fmt: skip
    assert (made.value, made.labels, made.k) == (None, None, None)
    assert [s.labels is None for s in made.seeds] == [False, True, True]


def written(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def test_a_file_is_changed_and_whether_it_was_is_said(tmp_path: Path) -> None:
    assert tampered._file("a.json", tampered._set(x=1))(tmp_path) is False
    assert list(tmp_path.iterdir()) == []
    written(tmp_path / "a.json", {"x": 0, "y": 2})
    assert tampered._file("a.json", tampered._set(x=1))(tmp_path) is True
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1, "y": 2}
    assert tampered._file("a.json", tampered._set(x=1))(tmp_path) is False


def test_a_file_is_removed_and_whether_it_was_is_said(tmp_path: Path) -> None:
    written(tmp_path / "a.json", {})
    written(tmp_path / "b.json", {})
    assert tampered._removed("a.json")(tmp_path) is True
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
    assert tampered._removed("a.json")(tmp_path) is False


def test_every_line_of_the_labels_is_changed(tmp_path: Path) -> None:
    change = tampered._labels(tampered._shuffled)
    assert change(tmp_path) is False
    lines = [{"id": "a", "labels": [1, 0, 0]}, {"id": "b", "labels": [0, 1, 1]}]
    (tmp_path / LABELS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert change(tmp_path) is True
    after = [json.loads(line) for line in (tmp_path / LABELS).read_text().splitlines()]
    assert [line["labels"] for line in after] == [[0, 0, 1], [1, 1, 0]]
    (tmp_path / LABELS).write_text(json.dumps({"id": "a", "labels": [1, 1]}) + "\n")
    assert change(tmp_path) is False


def test_steps_of_a_record() -> None:
    record = {"steps": {name: {"state": "finished", "key": name} for name in "abcde"}}
    tampered._unfinished_step(record)
    assert [step["state"] for step in record["steps"].values()] == ["failed", *["finished"] * 4]
    tampered._other_keys(record)
    keys = [step["key"] for step in record["steps"].values()]
    assert len({*keys} - {*"abcde"}) == 5
    tampered._three_steps(record)
    assert list(record["steps"]) == ["a", "b", "c"]


def test_pins_of_a_record_get_another_digest() -> None:
    record: dict[str, Any] = {"pins": {"a": {"digest": "0" * 64}, "b": {}}}
    tampered._other_pins(record)
    assert len({pin["digest"] for pin in record["pins"].values()} - {"0" * 64}) == 2


def test_the_last_canary_and_the_statistics_are_gone() -> None:
    content: dict[str, Any] = {
        "canaries": [{"id": "x"}, {"id": "y"}, {"id": "z"}],
        "cells": [{"id": "g/a"}, {"id": f"{EXTRA}g/a"}],
    }
    tampered._without_canary(content)
    tampered._without_statistics(content)
    assert content == {"canaries": [{"id": "x"}, {"id": "y"}], "cells": [{"id": "g/a"}]}
    tampered._without_canary(bare := dict[str, Any]())
    assert bare == {"canaries": []}


def replicated(id: str, names: str, **fields: Any) -> dict[str, Any]:
    seeds = [{"seed": name, "value": float(i)} for i, name in enumerate(names)]
    return {"id": id, "value": 77.0, "seeds": seeds} | fields


def test_replicates_are_counted_by_group_with_the_cells_beside_the_listed() -> None:
    """A cell that loses none keeps what it says, and so does one that would lose all."""
    content = {"cells": [
        replicated("g/a", "pq"), replicated(f"{EXTRA}g/b", "pqrs"),
        replicated("h/a", "xyz"), replicated("g/c", "rs"),
        {"id": "g/d", "value": 5.0, "seeds": None}, replicated("k/a", "1234"),
    ]}  # fmt: skip
    tampered._without_replicates(content)
    left = {c["id"]: ("".join(s["seed"] for s in c["seeds"] or []), c["value"])
            for c in content["cells"]}  # fmt: skip
    assert left == {
        "g/a": ("pq", 77.0), f"{EXTRA}g/b": ("rs", 2.5), "h/a": ("xyz", 77.0),
        "g/c": ("rs", 77.0), "g/d": ("", 5.0), "k/a": ("34", 2.5),
    }  # fmt: skip


@pytest.mark.parametrize("way", TAMPERINGS, ids=lambda way: way.name)
def test_hashes_fit_afterwards_unless_they_are_what_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: tampered.Tampering
) -> None:
    fitted = []
    monkeypatch.setattr(tampered, "fit", lambda run: fitted.append(run))
    run, copy = tmp_path / "run", tmp_path / "copy"
    run.mkdir()
    written(run / RESULTS, {"cells": [], "canaries": []})
    ways = [tampered.Tampering(way.name, done, way.says, fitted=way.fitted)
            for done in (lambda _: True, lambda _: False)]  # fmt: skip
    assert [made.copy(run, copy.with_name(str(i))) for i, made in enumerate(ways)] == [True, False]
    assert fitted == ([copy.with_name("0")] if way.fitted else [])
    about = ("hashes left", "no hash")
    assert way.fitted != any(words in way.name for words in about)
    assert way.refused == ("hashes left" in way.name)


def test_a_record_without_the_hash_of_the_table(tmp_path: Path) -> None:
    assert tampered._without_hash(tmp_path) is False
    written(tmp_path / RESULTS, {})
    written(tmp_path / RECORD, {"results_sha256": "0" * 64})
    assert tampered._without_hash(tmp_path) is True
    assert json.loads((tmp_path / RECORD).read_text()) == {"results_sha256": ""}
