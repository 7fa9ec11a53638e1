"""Curves of replicates as figures."""

from __future__ import annotations

import pytest

from kit.results.axes import Origin
from kit.results.builder import TableBuilder
from kit.results.curves import Line, by_checkpoint
from kit.results.types import Cell

LOSS = Line("loss", "training loss", "training step", "loss", "adapt")


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
    assert near.lines == {"adapt @ 0.1": [[1.0, 3.0], [2.0, 1.5]], "adapt @ 0.2": [[1.0, 9.0]]}
    assert far.lines == {"adapt": [[1.0, 8.0]]}


def test_replicates_measured_at_other_points_have_no_mean() -> None:
    table = TableBuilder()
    table.at(Origin("near", "0")).curve(LOSS, [(1, 1.0)])
    table.at(Origin("near", "1")).curve(LOSS, [(2, 1.0)])
    with pytest.raises(ValueError, match="line adapt were measured at different points"):
        table.build()


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
        "adapt": [[5.0, 1.0], [25.0, 2.0], [100.0, 3.0]],
        "adapt @ 0.01": [[5.0, 9.0]],
    }
    assert (near.id, near.title) == ("asr/near", "asr by training step, near")
    assert far.lines == {"scratch": [[25.0, 4.0]]}
    assert by_checkpoint(cells, "gap-closed") == []
