"""Ways to make a run directory say what it does not: what each does, and where it can nothing."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from kit.results.files import RECORD, RESULTS
from kit.verify import tampered
from kit.verify.tampered import TAMPERINGS, Tampering

Json = dict[str, Any]


def cell(id: str, *values: float, **fields: Any) -> Json:
    """A cell over seeds named 0, 1, ..."""
    seeds = [{"seed": str(i), "value": value} for i, value in enumerate(values)]
    return {"id": id, "unit": "loss", "value": fmean(values) if values else 1.0, "seeds": seeds} | (
        fields
    )


def seeds_of(made: Json) -> list[str]:
    return [seed["seed"] for seed in made["seeds"]]


def consistent(table: Json) -> bool:
    """Whether every mean is that of its seeds."""
    return all(
        made["value"] == pytest.approx(fmean(seed["value"] for seed in made["seeds"]))
        for made in table["cells"]
        if made["seeds"] and made["value"] is not None
    )


def test_two_replicates_of_a_group_are_gone_everywhere_and_the_means_follow() -> None:
    """Groups of three keep theirs, as a cell does that would have none left or has no mean."""
    table = {"cells": [
        cell("g/a", 1.0, 2.0, 4.0, 8.0, 16.0), cell("g/b", 3.0, 1.0, 2.0, 9.0),
        cell("g/few", 1.0, 2.0), cell("g/once"), cell("three/a", 1.0, 2.0, 4.0),
        cell("g/none", 1.0, 2.0, 4.0, 8.0, value=None),
    ]}  # fmt: skip
    for seed in table["cells"][4]["seeds"]:  # names of its own
        seed["seed"] = f"three-{seed['seed']}"
    tampered._without_replicates(table)
    left = {made["id"]: seeds_of(made) for made in table["cells"]}
    assert left == {
        "g/a": ["2", "3", "4"], "g/b": ["2", "3"], "g/few": ["0", "1"], "g/once": [],
        "three/a": ["three-0", "three-1", "three-2"], "g/none": ["0", "1", "2", "3"],
    }  # fmt: skip
    assert consistent(table)


def test_a_group_of_four_is_enough_to_lose_two() -> None:
    table = {"cells": [cell("g/a", 1.0, 2.0, 4.0, 8.0)]}
    tampered._without_replicates(table)
    assert seeds_of(table["cells"][0]) == ["2", "3"]


def test_half_the_seeds_of_the_first_cell_that_has_four_are_gone() -> None:
    table = {"cells": [
        cell("x/hidden", 1.0, 2.0, 3.0, 4.0), cell("g/three", 1.0, 2.0, 4.0),
        cell("g/none", 1.0, 2.0, 4.0, 8.0, value=None), cell("g/four", 1.0, 2.0, 4.0, 8.0),
        cell("g/more", *map(float, range(9))),
    ]}  # fmt: skip
    table["cells"][0]["id"] = f"{tampered.EXTRA}g/hidden"
    tampered._fewer_seeds(table)
    left = [len(made["seeds"]) for made in table["cells"]]
    assert left == [4, 3, 4, 2, 9]
    assert consistent(table)


def test_fields_are_gone_from_cells_and_replicates_alike() -> None:
    made = cell("g/a", 1.0, 2.0, k=3, n=4)
    for seed in made["seeds"]:
        seed |= {"k": 1, "n": 2}
    hidden = cell(f"{tampered.EXTRA}g/b", 1.0, k=3)
    tampered._stripped("k")({"cells": [made, hidden]})
    assert "k" not in made
    assert made["n"] == 4
    assert all(seed.keys() == {"seed", "value", "n"} for seed in made["seeds"])
    assert hidden["k"] == 3


def test_labels_are_as_many_ones_on_other_items() -> None:
    line = {"labels": [1, 1, 0, 0], "items": ["a", "b", "c", "d"]}
    tampered._shuffled(line)
    assert line["labels"] == [1, 0, 0, 1]
    tampered._renamed(line)
    assert not {*line["items"]} & {*"abcd"}
    assert len({*line["items"]}) == 4


def test_one_cell_is_of_no_step_where_another_is() -> None:
    table = {"cells": [cell("g/a", step="train"), cell("g/b", step="train"), cell("g/c")]}
    tampered._unknown_step(table)
    assert [made.get("step") for made in table["cells"]] == ["by-hand", "train", None]
    alone = {"cells": [cell("g/a", step="train")]}
    tampered._unknown_step(alone)
    assert alone["cells"][0]["step"] == "train"


@pytest.mark.parametrize("way", TAMPERINGS, ids=lambda way: way.name)
def test_a_way_with_nothing_to_do_it_to_changes_nothing_and_says_so(
    tmp_path: Path, way: Tampering
) -> None:
    """A table without canaries, counts, labels and seeds, and no other file."""
    run = tmp_path / "run"
    run.mkdir()
    table = {"cells": [{"id": "g/a", "unit": "loss", "value": 1.0}], "canaries": []}
    (run / RESULTS).write_text(json.dumps(table))
    assert way.copy(run, tmp_path / "copy") is False
    assert [path.name for path in (tmp_path / "copy").iterdir()] == [RESULTS]
    assert json.loads((tmp_path / "copy" / RESULTS).read_text()) == table
    assert json.loads((run / RESULTS).read_text()) == table


def test_what_was_not_done_is_neither_caught_nor_missed(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text(json.dumps({"cells": [], "canaries": []}))
    outcomes = list(tampered.try_all(tmp_path))
    assert [outcome.name for outcome in outcomes] == [way.name for way in TAMPERINGS]
    assert {outcome.caught for outcome in outcomes} == {None}


@pytest.mark.parametrize(
    ("verdict", "says", "caught"),
    [
        ("INCOMPLETE", "canary x is not there", True),
        ("refused", "canary x is not there", True),
        ("REPRODUCED", "canary x is not there", False),
        ("PARTIALLY", "canary x is not there", False),
        ("INCOMPLETE", "something else", False),
    ],
)
def test_a_copy_is_caught_by_a_verdict_that_names_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, says: str, caught: bool
) -> None:
    (tmp_path / RESULTS).write_text(json.dumps({"cells": [], "canaries": [{"id": "x"}]}))
    monkeypatch.setattr(tampered, "_said", lambda run, expectation: [verdict, says])
    way = next(way for way in TAMPERINGS if way.name == "all canaries removed")
    monkeypatch.setattr(tampered, "TAMPERINGS", (way,))
    (outcome,) = tampered.try_all(tmp_path)
    assert outcome.caught is caught
    assert outcome.says == (says if "canary" in says else f"{verdict}; {says}")


@pytest.mark.parametrize("named", [True, False])
def test_the_record_names_the_table_or_not(tmp_path: Path, named: bool) -> None:
    (tmp_path / RESULTS).write_text("{}")
    (tmp_path / RECORD).write_text(json.dumps({"status": "finished"}))
    tampered.fit(tmp_path, named=named)
    record = json.loads((tmp_path / RECORD).read_text())
    assert record["status"] == "finished"
    assert record["results_sha256"] == (tampered.sha256_file(tmp_path / RESULTS) if named else "")
