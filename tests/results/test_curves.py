"""Curves of replicates as figures."""

from __future__ import annotations

import pytest

from kit.results.axes import Origin
from kit.results.builder import TableBuilder
from kit.results.curves import Line, by_checkpoint
from kit.results.types import Cell, Curve, Point, SeedValue

LOSS = Line("loss", "training loss", "training step", "loss", "loss", "adapt")


def cell(id: str, value: float | None) -> Cell:
    return Cell(id=id, unit="percent", value=value, not_run=None if value is not None else "why")


def test_a_figure_a_group_and_a_line_a_setting() -> None:
    table = TableBuilder()
    table.at(Origin("near", "0", ("0.1",))).curve(LOSS, [(2, 1.0), (1, 4.0)])
    table.at(Origin("near", "1", ("0.1",))).curve(LOSS, [(1, 2.0), (2, 2.0)])
    table.at(Origin("near", "0", ("0.2",))).curve(LOSS, [(1, 9.0)])
    table.at(Origin("far", "0")).curve(LOSS, [(1, 8.0)])
    near, far = table.build().series
    assert (near.id, near.title) == ("loss/near", "training loss, near")
    assert (near.x_label, near.y_label) == ("training step", "loss")
    assert near.unit == "loss"
    assert near.lines == {
        "adapt @ 0.1": [
            Curve(seed="0", points=[Point(1.0, 4.0), Point(2.0, 1.0)]),
            Curve(seed="1", points=[Point(1.0, 2.0), Point(2.0, 2.0)]),
        ],
        "adapt @ 0.2": [Curve(seed="0", points=[Point(1.0, 9.0)])],
    }
    assert far.lines == {"adapt": [Curve(seed="0", points=[Point(1.0, 8.0)])]}


def test_points_carry_their_counts_and_stand_at_different_x() -> None:
    table = TableBuilder()
    table.at(Origin("near", "0")).curve(LOSS, [(5, 50.0, 2, 4), (0, 25.0, 1, 4)])
    with pytest.raises(ValueError, match="line adapt of loss/near has two points at 5"):
        table.at(Origin("near", "1")).curve(LOSS, [(5, 1.0), (5, 2.0)])
    (series,) = table.build().series
    (curve,) = series.lines["adapt"]
    assert curve.points == [Point(0, 25.0, 1, 4), Point(5, 50.0, 2, 4)]


def test_a_replicate_has_a_line_once() -> None:
    table = TableBuilder()
    table.at(Origin("near", "0")).curve(LOSS, [(1, 1.0)])
    with pytest.raises(ValueError, match="line adapt of loss/near twice in '0'"):
        table.at(Origin("near", "0")).curve(LOSS, [(1, 1.0)])


def test_rows_of_checkpoints_are_curves_sorted_by_step() -> None:
    cells = [
        cell("near/asr/adapt-100", 3.0),
        cell("near/asr/adapt-5", 1.0),
        cell("near/asr/adapt-25", 2.0),
        cell("near/asr/adapt-5@0.01", 9.0),
        cell("near/asr/norm-rescaled", 7.0),
        cell("near/asr/native", 7.0),
        cell("near/asr/adapt-7", None),
        cell("near/refusal/adapt-5", 8.0),
        cell("stats/near/adapt-5/asr", 8.0),
        cell("far/asr/scratch-25", 4.0),
    ]
    near, far = by_checkpoint(cells, "asr")
    assert near.lines == {
        "adapt": [Curve(points=[Point(5, 1.0), Point(25, 2.0), Point(100, 3.0)])],
        "adapt @ 0.01": [Curve(points=[Point(5, 9.0)])],
    }
    assert near.unit == "percent"
    assert (near.id, near.title) == ("asr/near", "asr by training step, near")
    assert far.lines == {"scratch": [Curve(points=[Point(25, 4.0)])]}
    assert by_checkpoint(cells, "gap-closed") == []


def test_seeds_of_checkpoint_cells_are_curves_of_their_own() -> None:
    def seeded(step: int, *hits: int) -> Cell:
        seeds = [SeedValue(seed=f"s{i}", value=10.0 * k, k=k, n=10) for i, k in enumerate(hits)]
        mean = sum(seed.value for seed in seeds) / len(seeds)
        return Cell(id=f"near/asr/adapt-{step}", unit="percent", value=mean, n=10, seeds=seeds)

    (series,) = by_checkpoint([seeded(50, 1, 3), seeded(25, 4, 6)], "asr")
    assert series.lines["adapt"] == [
        Curve(seed="s0", points=[Point(25, 40.0, 4, 10), Point(50, 10.0, 1, 10)]),
        Curve(seed="s1", points=[Point(25, 60.0, 6, 10), Point(50, 30.0, 3, 10)]),
    ]
