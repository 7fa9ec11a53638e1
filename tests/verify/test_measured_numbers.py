"""A measured number at the edges of what is taken for consistent."""

from __future__ import annotations

from fractions import Fraction
from math import inf, nan

import pytest

from kit.errors import InvalidInput
from kit.results.labels import LabelSource
from kit.results.types import Cell, SeedValue
from kit.verify.measurement import Measurement, measure
from kit.verify.published import printed_table
from tests.verify.builders import (
    expectation,
    expected_cell,
    labels,
    line_of,
    memory,
    share,
    trajectory_cell,
)

ID = "t/a"


def read(cell: Cell, source: LabelSource | None = None, unit: str = "") -> Measurement:
    return measure(cell, unit or cell.unit, "table", source)


def of_seeds(value: float | None, values: tuple[float, ...], unit: str) -> Cell:
    seeds = [SeedValue(seed=str(i), value=v) for i, v in enumerate(values)]
    return Cell(id=ID, unit=unit, value=value, seeds=seeds)


@pytest.mark.parametrize(
    ("mean", "unit", "off"),
    [
        (0.5, "loss", 1e-6),  # below 1 the unit's whole is what a share is taken of
        (2000.0, "loss", 2e-3),  # above it the mean itself
        (-2000.0, "loss", 2e-3),
        (50.0, "percent", 1e-4),
        (0.0, "fraction", 1e-6),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_mean_agrees_with_its_seeds_to_a_millionth(
    mean: float, unit: str, off: float, sign: int
) -> None:
    """Exactly a millionth still agrees; a tenth more does not, in either direction."""
    for seeds in ((mean, mean), (mean - 0.25, mean + 0.25)):
        stated = float(Fraction(repr(mean)) + sign * Fraction(repr(off)))
        assert read(of_seeds(stated, seeds, unit)).value == Fraction(repr(mean))
        with pytest.raises(InvalidInput, match="contradicts the mean of its seeds"):
            read(of_seeds(mean + 1.1 * sign * off, seeds, unit))


def test_without_a_stated_mean_there_is_that_of_the_seeds() -> None:
    assert read(of_seeds(None, (1.0, 2.0, 6.0), "loss")).value == 3


@pytest.mark.parametrize("off", [1e-4, -1e-4])
def test_a_share_agrees_with_its_count_to_a_millionth_of_the_whole(off: float) -> None:
    right = Cell(id=ID, unit="percent", value=25.0 + off, k=1, n=4)
    assert read(right).value == 25
    wrong = Cell(id=ID, unit="percent", value=25.0 + 1.1 * off, k=1, n=4)
    with pytest.raises(InvalidInput, match="contradicts k/n"):
        read(wrong)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 4), (4, 4)])
def test_counts_of_none_and_of_all_are_possible(k: int, n: int) -> None:
    read_here = read(share(ID, k, n), unit="fraction")
    assert (read_here.value, read_here.counted) == (Fraction(k, n), (k, n))


@pytest.mark.parametrize(("k", "n"), [(-1, 4), (5, 4), (0, 0), (0, -1)])
def test_other_counts_are_not(k: int, n: int) -> None:
    with pytest.raises(InvalidInput, match="is impossible"):
        read(Cell(id=ID, unit="percent", k=k, n=n))


def test_a_count_needs_its_items_and_items_need_no_count() -> None:
    with pytest.raises(InvalidInput, match="'n' is missing"):
        read(Cell(id=ID, unit="percent", value=25.0, k=1))
    alone = read(Cell(id=ID, unit="percent", value=25.0, n=4))
    assert (float(alone.value or 0), alone.n, alone.proportion) == (25.0, 4, False)
    assert read(Cell(id=ID, unit="loss", value=2.0, k=1)).value == 2  # of no share


@pytest.mark.parametrize("value", [inf, -inf, nan])
def test_a_number_is_finite(value: float) -> None:
    for cell in (Cell(id=ID, unit="loss", value=value), of_seeds(None, (1.0, value), "loss")):
        with pytest.raises(InvalidInput, match="not a finite number"):
            read(cell)


@pytest.mark.parametrize("xs", [(0.0, 0.0), (1.0, 0.0), (0.0, inf), (-inf, 0.0), (0.0, nan)])
def test_a_curve_moves_on_through_finite_places(xs: tuple[float, float]) -> None:
    line = line_of(ID, {"0": [(x, 1.0) for x in xs]})
    with pytest.raises(InvalidInput, match="x does not rise"):
        measure(trajectory_cell(ID), "loss", "table", None, [line])
    line = line_of(ID, {"0": [(0.0, 1.0), (1e-9, 1.0)]})
    (curve,) = measure(trajectory_cell(ID), "loss", "table", None, [line]).curves
    assert [point.x for point in curve.points] == [0.0, 1e-9]


def test_curves_have_a_seed_each_and_the_cells_unit() -> None:
    line = line_of(ID, {"0": [(0.0, 0.5, 1, 2)], "1": [(0.0, 0.25, 1, 4)]}, "fraction")
    cell = trajectory_cell(ID, "percent")
    curves = measure(cell, "percent", "table", None, [line]).curves
    assert [(c.seed, c.points[0].value, c.points[0].n) for c in curves] == [
        ("0", 50.0, 2),
        ("1", 25.0, 4),
    ]


def test_labels_count_where_there_are_labels_a_source_and_items() -> None:
    """Each of the three may be absent, and then nothing is looked up."""
    source = memory(labels("here", "0110"))
    for cell, where in (
        (share(ID, 2, 4), source),
        (share(ID, 2, 4, labels="elsewhere"), None),
        (Cell(id=ID, unit="loss", value=2.0, labels="elsewhere"), source),
    ):
        assert read(cell, where).value is not None
    whole = read(share(ID, 2, 4, labels="here"), source)
    line = whole.read_labels()
    assert line is not None
    assert list(line.labels) == [0, 1, 1, 0]
    assert read(share(ID, 2, 4), source).read_labels() is None
    assert read(share(ID, 2, 4, labels="here")).read_labels() is None


@pytest.mark.parametrize(("k", "n", "said"), [(2, 5, "4 labels"), (3, 4, "2 ones")])
def test_labels_of_other_counts_are_refused_for_cells_and_seeds(k: int, n: int, said: str) -> None:
    source = memory(labels("here", "0110"))
    seeds = [
        SeedValue(seed="0", value=50.0, k=2, n=4, labels="here"),
        SeedValue(seed="1", value=100.0 * k / n, k=k, n=n, labels="here"),
    ]
    for cell in (share(ID, k, n, labels="here"), Cell(id=ID, unit="percent", seeds=seeds)):
        with pytest.raises(InvalidInput, match=said):
            read(cell, source)


def test_a_single_seed_is_the_cell_itself() -> None:
    source = memory(labels("here", "0110"))
    seed = SeedValue(seed="7", value=50.0, k=2, n=4, labels="here")
    alone = read(Cell(id=ID, unit="percent", seeds=[seed]), source)
    assert (alone.seeds, alone.counted, alone.labels) == ((), (2, 4), "here")
    assert alone.proportion
    assert alone.read_labels() is not None


@pytest.mark.parametrize(
    ("counts", "n", "proportion"),
    [
        (((1, 4), (2, 4)), 4, True),
        (((1, 4), (2, 8)), None, True),
        (((1, 4), (None, 4)), 4, False),
        (((None, None), (1, 4)), None, False),
        (((None, None), (None, None)), None, False),
    ],
)
def test_replicates_are_shares_together_and_have_a_common_size(
    counts: tuple[tuple[int | None, int | None], ...], n: int | None, proportion: bool
) -> None:
    seeds = [
        SeedValue(seed=str(i), value=25.0 if k is None or m is None else 100 * k / m, k=k, n=m)
        for i, (k, m) in enumerate(counts)
    ]
    both = read(Cell(id=ID, unit="percent", seeds=seeds, labels="none"), memory())
    assert (both.n, both.proportion, len(both.seeds)) == (n, proportion, 2)
    assert both.read_labels() is None


def test_a_seed_that_stands_twice_is_named() -> None:
    seeds = [SeedValue(seed=name, value=1.0) for name in ("a", "b", "b")]
    with pytest.raises(InvalidInput, match="'b' stands twice"):
        read(Cell(id=ID, unit="loss", seeds=seeds))


def test_other_units_are_converted_where_they_are_of_the_same_thing() -> None:
    assert read(Cell(id=ID, unit="percent", value=25.0), unit="fraction").value == Fraction(1, 4)
    assert read(of_seeds(None, (0.25, 0.75), "fraction"), unit="percent").value == 50
    with pytest.raises(InvalidInput, match="cannot be compared"):
        read(Cell(id=ID, unit="percent", value=25.0), unit="loss")


def test_where_a_seed_lies_beyond_what_was_measured_there_is_no_mean() -> None:
    seeds = [SeedValue(seed="0", value=10.0), SeedValue(seed="1", value=20.0, beyond=True)]
    both = read(Cell(id=ID, unit="steps", seeds=seeds))
    assert both.value is None
    assert both.censored
    alone = read(Cell(id=ID, unit="steps", seeds=seeds[1:]))
    assert (alone.value, len(alone.seeds)) == (None, 1)
    with pytest.raises(InvalidInput, match="there is no mean"):
        read(Cell(id=ID, unit="steps", value=15.0, seeds=seeds))


def test_a_printed_table_has_what_stands_in_a_document() -> None:
    """A number is in it where the document prints one, be it measured there or quoted."""
    cells = [
        expected_cell("t/reported", "4.8"),
        expected_cell("t/quoted", "5.1", status="quoted"),
        expected_cell("t/reference", "6.0", status="reference"),
        expected_cell("t/running", None, status="running"),
        expected_cell("t/empty", None),
    ]
    said = printed_table(expectation(cells))
    assert [line.partition(",")[0] for line in said.splitlines()[1:]] == ["t/reported", "t/quoted"]
