"""From label files to cells and curves, worked out by hand for a small table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.methods.defensive_tokens.adaptive.attack_table import attack_table
from kit.methods.defensive_tokens.gather import StageFolder
from kit.results.asks import with_answers
from kit.results.builder import Table
from kit.results.types import Results

ROLES = {"pair": "replicate", "attacker": "setting"}
ITEMS = ["a", "b", "c", "d"]
SEARCHES: dict[str, dict[str, Any]] = {
    "blind": {
        "undefended": {"labels": [[0, 0, 0, 0], [1, 1, 1, 0]], "empty": 0},
        "native": {"labels": [[0, 0, 0, 0], [0, 1, 0, 0]], "empty": 1},
    },
    "aware": {"native": {"labels": [[0, 0, 0, 0], [1, 1, 0, 0]], "empty": 0}},
}
TEXTS = {
    "undefended": {"naive": [0, 0, 0, 1], "ignore-0": [1, 1, 1, 1]},
    "native": {"naive": [1, 1, 1, 1], "ignore-0": [0, 0, 0, 0]},
}


def write(folder: Path, name: str, content: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder, searches, texts = tmp_path_factory.mktemp("t"), [], []
    for pair in ("p", "q"):
        for attacker, victims in SEARCHES.items():
            losses = {"native" if attacker == "aware" else "undefended": [3.0, 1.0]}
            scores = {"items": ITEMS, "queries": [0, 9], "victims": victims, "losses": losses}
            path = write(folder / f"s-{pair}-{attacker}", "scores.json", scores)
            axes = {"pair": {"id": pair, "seed": 1}, "attacker": attacker}
            searches.append(StageFolder(f"search-{pair}-{attacker}", path, axes))
        path = write(folder / f"t-{pair}", "labels.json", {"items": ITEMS, "victims": TEXTS})
        texts.append(StageFolder(f"texts-{pair}", path, {"pair": {"id": pair, "seed": 1}}))
    return attack_table(searches, texts, ROLES, level=0.95, seed=0)


def test_rows_are_victims_and_settings_attackers(table: Table) -> None:
    values = {cell.id: cell.value for cell in table.cells}
    assert values["all/asr-gcg/undefended@blind"] == 75
    assert values["all/asr-gcg/native@blind"] == 25
    assert values["all/asr-gcg/native@aware"] == 50
    assert values["stats/all/native@blind/empty-rate"] == 25
    assert not [id for id in values if "undefended@aware" in id]


def test_the_blind_attacker_takes_what_works_on_the_undefended_model(table: Table) -> None:
    values = {cell.id: cell.value for cell in table.cells}
    assert values["all/asr-best-of-n/undefended@blind"] == 100
    assert values["all/asr-best-of-n/native@blind"] == 0
    assert values["all/asr-best-of-n/native@aware"] == 100
    assert values["all/best-of-n-naive/native@aware"] == 100
    assert "all/best-of-n-low/native@blind" not in values
    assert (
        values["all/best-of-n-low/native@aware"] < 100 == values["all/best-of-n-high/native@aware"]
    )
    assert values["all/asr-any-text/native@aware"] == 100


def test_curves_are_asked_and_belong_to_pairs(table: Table) -> None:
    results = Results(
        schema_version=1,
        experiment="x",
        version="1-A",
        profile="mini",
        cells=table.cells,
        series=table.series,
    )
    ids = [
        "all/gcg/native@aware:end",
        "all/gcg/native@aware:first-above:40",
        "all/gcg/native@blind:area",
    ]
    cells, unanswered = with_answers(results, ids)
    assert not unanswered
    assert [cells[id].value for id in ids] == [50, 9, 112.5]
    lines = {series.id: series.lines for series in table.series}
    assert [curve.seed for curve in lines["gcg/all"]["native @ aware"]] == ["p/1", "q/1"]
    point = lines["gcg/all"]["native @ aware"][0].points[-1]
    assert (point.x, point.value, point.k, point.n) == (9, 50, 2, 4)
    assert {"best-of-n/all", "any-of-n/all", "gcg-loss/all"} <= lines.keys()
    # Two texts, of which a single one works everywhere: half of the draws of one text find it.
    assert [p.value for p in lines["any-of-n/all"]["native @ aware"][0].points] == [50, 100]


def test_items_have_labels(table: Table) -> None:
    cells = {cell.id: cell for cell in table.cells}
    for id, n in (("all/asr-gcg/native@aware", 4), ("all/asr-best-of-n/native@aware", 2)):
        assert [seed.n for seed in cells[id].seeds] == [n, n]
        assert all(seed.labels for seed in cells[id].seeds)


def test_a_search_without_its_axis_is_refused(tmp_path: Path) -> None:
    stage = StageFolder("s", write(tmp_path / "s", "scores.json", {}), {"pair": "p"})
    with pytest.raises(ValueError, match="no axis"):
        attack_table([stage], [], ROLES, level=0.95, seed=0)


def test_the_end_of_a_search_counts_and_every_report_is_a_point(tmp_path: Path) -> None:
    labels = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    scores = {
        "items": ITEMS,
        "queries": [0, 9, 36],
        "victims": {"native": {"labels": labels, "empty": 1}},
        "losses": {"native": [3.0, 2.0, 0.5]},
    }
    path = write(tmp_path / "s", "scores.json", scores)
    axes = {"pair": {"id": "p", "seed": 1}, "attacker": "aware"}
    made = attack_table([StageFolder("s", path, axes)], [], ROLES, level=0.95, seed=0)
    values = {cell.id: cell.value for cell in made.cells}
    assert values["all/asr-gcg/native"] == 75
    lines = {series.id: series.lines for series in made.series}
    ((curve,),) = lines["gcg/all"].values()
    assert [(p.x, p.value, p.k, p.n) for p in curve.points] == [
        (0, 0, 0, 4),
        (9, 25, 1, 4),
        (36, 75, 3, 4),
    ]
    ((loss,),) = lines["gcg-loss/all"].values()
    assert [(p.x, p.value) for p in loss.points] == [(0, 3.0), (9, 2.0), (36, 0.5)]
