"""From measurements to cells, label lines and files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import numpy as np
import pytest

from kit.results.axes import Axes, Origin
from kit.results.builder import Table, TableBuilder
from kit.results.files import write_table
from kit.results.ids import CellId, Statistic
from kit.results.labels import LabelFiles
from kit.results.types import Cell, Results

NEAR, FAR = Origin("near", "p1/7", (), "e1"), Origin("far", "p2/8", (), "e2")
ITEMS = ["a", "b", "c", "d"]
ROLES = {"victim": "group", "adversary": "setting", "seed": "replicate"}


def by_id(table: Table) -> dict[str, Cell]:
    return {cell.id: cell for cell in table.cells}


def grid() -> Iterator[dict[str, Any]]:
    for victim, adversary, seed in product(("base", "guarded"), ("lora", "full"), (0, 1, 2)):
        yield {"victim": victim, "adversary": adversary, "seed": seed}


def test_a_matrix_of_models_adversaries_and_seeds_has_the_seeds_as_replicates() -> None:
    rng, table, instances = np.random.default_rng(0), TableBuilder(), list(grid())
    axes, drawn = Axes(instances, ROLES), {}
    for i, one in enumerate(instances):
        labels = rng.integers(0, 2, 20).tolist()
        drawn[one["victim"], one["adversary"], str(one["seed"])] = labels
        table.at(axes.origin(f"attack-{i}", one)).proportion("asr", "held-out", labels)
    cells = by_id(table.build())
    assert set(cells) == {
        f"{victim}/asr/held-out@{adversary}"
        for victim, adversary in product(("base", "guarded"), ("lora", "full"))
    }
    for id, cell in cells.items():
        victim, adversary = id.partition("/")[0], id.partition("@")[2]
        assert [one.seed for one in cell.seeds] == ["0", "1", "2"]
        counts = [sum(drawn[victim, adversary, one.seed]) for one in cell.seeds]
        assert [one.k for one in cell.seeds] == counts
        assert cell.value == fmean(100 * k / 20 for k in counts)
        assert (cell.n, cell.k) == (20, None)


def test_a_cell_of_a_single_replicate_has_no_seeds() -> None:
    table = TableBuilder()
    table.at(NEAR).proportion("asr", "lora", [1, 0, 1, 0], ITEMS, unit="fraction")
    table.at(NEAR).number("loss", "lora", 1.25, "nats")
    share, loss = table.build().cells
    assert (share.value, share.k, share.n, share.unit) == (0.5, 2, 4, "fraction")
    assert share.labels == "labels.jsonl#near/asr/lora#p1/7"
    assert loss == Cell(id="near/loss/lora", unit="nats", value=1.25, step="e1")


def test_what_is_written_is_read_back_with_its_labels(tmp_path: Path) -> None:
    table = TableBuilder()
    for seed, labels in (("0", [1, 0, 1, 1]), ("1", [0, 0, 1, 0])):
        here = table.at(Origin("near", seed, ("0.1",), f"e{seed}"))
        here.proportion("asr", "lora", labels, ITEMS, choices="ABCD", answers="AACC")
        here.count(Statistic.EMPTY, "lora", 1, 4)
    made = table.build()
    made.write(tmp_path)
    read = msgspec.json.decode((tmp_path / "results.json").read_bytes(), type=Results)
    assert read.cells == made.cells
    assert (read.experiment, read.version, read.profile) == ("", "", "")
    (cell, about), files = read.cells, LabelFiles(tmp_path)
    for one, expected in zip(cell.seeds, ([1, 0, 1, 1], [0, 0, 1, 0]), strict=True):
        line = files.get(one.labels or "")
        assert (line.labels, line.items, line.k) == (expected, ITEMS, one.k)
        assert (line.choices, line.answers) == (list("ABCD"), list("AACC"))
    assert about.id == "stats/near/lora@0.1/empty-rate"
    assert [one.labels for one in about.seeds] == [None, None]
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 2


def test_cells_about_generations_stand_behind_the_others() -> None:
    table = TableBuilder()
    table.at(NEAR).count(Statistic.EMPTY, "lora", 0, 4)
    table.at(NEAR).number("loss", "lora", 1.0, "nats")
    assert [cell.id for cell in table.build().cells] == [
        "near/loss/lora",
        "stats/near/lora/empty-rate",
    ]


def test_a_cell_measured_twice_in_one_replicate_is_refused() -> None:
    table = TableBuilder()
    table.at(NEAR).number("loss", "lora", 1.0, "nats")
    with pytest.raises(
        ValueError, match=r"near/loss/lora was measured twice in one replicate \(p1"
    ):
        table.at(NEAR).number("loss", "lora", 1.0, "nats")


def test_a_setting_with_the_role_of_no_axis_is_not_averaged() -> None:
    """Two rates of one seed: without the role they would be two observations of one cell."""
    made = [{"seed": 0, "rate": rate} for rate in (0.1, 0.2)]
    axes, table = Axes(made, {"seed": "replicate"}), TableBuilder()
    for one in made:
        table.at(axes.origin("s", one)).number("loss", "lora", one["rate"], "nats")
    assert {cell.id: cell.value for cell in table.build().cells} == {
        "all/loss/lora@0.1": 0.1,
        "all/loss/lora@0.2": 0.2,
    }


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(ValueError, match=r"cell near/norm/lora of p1/7 is (inf|nan)"):
        TableBuilder().at(NEAR).number("norm", "lora", value, "norm")


@pytest.mark.parametrize(
    ("labels", "items", "message"),
    [
        ([], [], "0 of 0 is no proportion"),
        ([1, 0], ["a"], "1 items for 2 labels"),
        ([1, 2], [], "a label of a proportion is 0 or 1"),
    ],
)
def test_labels_that_are_no_proportion_are_refused(
    labels: list[int], items: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TableBuilder().at(NEAR).proportion("asr", "lora", labels, items)


@pytest.mark.parametrize(("k", "n"), [(5, 4), (-1, 4), (0, 0)])
def test_counts_that_are_no_proportion_are_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no proportion"):
        TableBuilder().at(NEAR).count("asr", "lora", k, n)


def test_a_proportion_in_another_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="in percent or fraction, not 'ratio'"):
        TableBuilder().at(NEAR).count("asr", "lora", 1, 4, unit="ratio")


def test_replicates_in_different_units_are_refused() -> None:
    table = TableBuilder()
    table.at(NEAR).number("norm", "lora", 1.0, "norm")
    table.at(Origin("near", "p2/8")).number("norm", "lora", 1.0, "ratio")
    with pytest.raises(ValueError, match="near/norm/lora is in norm and in ratio"):
        table.build()


def test_a_derived_cell_follows_from_cells_of_its_own_replicate() -> None:
    table = TableBuilder()
    for seed, (before, after) in {"0": (80.0, 20.0), "1": (60.0, 40.0)}.items():
        base = table.at(Origin("near", seed, (), "base"))
        base.number("asr", "before", before, "percent")
        here = table.at(Origin("near", seed, ("lora",), "attack"))
        here.number("asr", "after", after, "percent")
        of = [CellId("near", "asr", "before"), ("asr", "after")]
        here.derived("gain", "after", lambda a, b: b - a, of, "percent")
    cell = by_id(table.build())["near/gain/after@lora"]
    assert [(one.seed, one.value) for one in cell.seeds] == [("0", -60.0), ("1", -20.0)]
    assert cell.value == -40.0


def test_a_derived_cell_may_be_undefined_but_never_of_something_missing() -> None:
    table = TableBuilder()
    here = table.at(NEAR)
    here.number("asr", "lora", 1.0, "percent")
    here.derived("ratio", "lora", lambda a: None, [("asr", "lora")], "ratio")
    assert not here.has("ratio", "lora")
    assert here.value("asr", "lora") == 1.0
    with pytest.raises(ValueError, match="near/asr/full of p1/7 was not measured"):
        here.derived("ratio", "lora", lambda a: a, [("asr", "full")], "ratio")


def test_cells_that_are_not_run_say_why() -> None:
    table = TableBuilder()
    id = CellId("near", "winrate", "lora")
    table.not_run(id, "percent", "no judge")
    assert table.build().cells == [Cell(id="near/winrate/lora", unit="percent", not_run="no judge")]
    with pytest.raises(ValueError, match="say why"):
        table.not_run(id, "percent", "")
    table.at(NEAR).number("winrate", "lora", 50.0, "percent")
    with pytest.raises(ValueError, match="declared as not run and was measured"):
        table.build()


def test_groups_are_pooled_over_all_replicates_and_labels_stay_where_they_are() -> None:
    table = TableBuilder()
    table.at(NEAR).proportion("asr", "lora", [1, 1, 1, 1], ITEMS)
    table.at(FAR).proportion("asr", "lora", [1, 0, 0, 0], ITEMS)
    table.at(NEAR).count(Statistic.EMPTY, "lora", 0, 4)
    table.pool_groups()
    made = table.build()
    cells = by_id(made)
    pooled = cells["all/asr/lora"]
    assert [(one.seed, one.k, one.n, one.labels) for one in pooled.seeds] == [
        ("p1/7", 4, 4, None),
        ("p2/8", 1, 4, None),
    ]
    assert pooled.value == 62.5
    assert (cells["stats/all/lora/empty-rate"].k, cells["near/asr/lora"].k) == (0, 4)
    assert {line.id for line in made.labels} == {"near/asr/lora#p1/7", "far/asr/lora#p2/8"}


def test_a_single_group_is_not_pooled() -> None:
    table = TableBuilder()
    table.at(NEAR).number("loss", "lora", 1.0, "nats")
    table.pool_groups()
    assert [cell.id for cell in table.build().cells] == ["near/loss/lora"]


def test_groups_whose_replicates_share_names_cannot_be_pooled() -> None:
    """Seed 0 of two victims is not twice the same observation, and not told apart either."""
    table = TableBuilder()
    for group in ("base", "guarded"):
        table.at(Origin(group, "0", (), group)).number("loss", "lora", 1.0, "nats")
    with pytest.raises(ValueError, match="all/loss/lora was measured twice in one replicate"):
        table.pool_groups()


def test_a_cell_that_stands_twice_is_not_written(tmp_path: Path) -> None:
    cell = Cell(id="near/loss/lora", unit="nats", value=1.0)
    other = Cell(id="near/loss/full", unit="nats", value=1.0)
    with pytest.raises(ValueError, match="near/loss/lora stands twice"):
        write_table(tmp_path, [other, cell, cell])
    assert list(tmp_path.iterdir()) == []
