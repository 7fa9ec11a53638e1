"""The self-test finds what it plants, and its rates agree with theory."""

from __future__ import annotations

import pytest

from kit.results.types import Cell, SeedValue
from kit.verify.core import Subject
from kit.verify.plants import STRUCTURAL, flipped, swapped
from kit.verify.selftest import PlantReport, lines, selftest
from tests.verify.builders import (
    expectation,
    expected_cell,
    labels,
    memory,
    reference,
    seeded,
    share,
    table,
    tolerance,
)

CELLS = [
    expected_cell("t/a", "4.8", n=208),
    expected_cell("t/b", "50.0", n=868),
    expected_cell("t/f", "4.8", n=208, tolerance=tolerance("flip", margin="5", flip_rate="0.02")),
    expected_cell("t/s", None, status="reference", reference=reference(["49", "51", "50.4"]),
                  tolerance=tolerance("seeds", margin="5")),
    expected_cell("t/x", "1.9", unit="loss", tolerance=tolerance("absolute", margin="0.2")),
    expected_cell("t/z", "1.9", unit="loss", tolerance=tolerance("absolute", margin="0.2")),
]  # fmt: skip
CELLS += [
    expected_cell("t/u", None, tolerance=tolerance("bound", bound="60", side="at_most")),
    expected_cell("t/v", "50", tolerance=tolerance("absolute", margin="5")),
]
MEASURED = [share("t/a", 9, 208), share("t/b", 430, 868), share("t/f", 10, 208),
            seeded("t/s", [50.0, 50.8, 49.5]), Cell(id="t/x", unit="loss", value=1.95),
            seeded("t/u", [50.0, 50.8, 49.5]), seeded("t/v", [50.0, 50.8, 49.5])]  # fmt: skip
SUBJECT = Subject(expected=expectation(CELLS), results=table(MEASURED))


@pytest.fixture(scope="module")
def reports() -> dict[tuple[str, str], PlantReport]:
    outcome = selftest(SUBJECT, trials=1000)
    assert outcome.untested == ["t/z"]
    shifts: dict[str, int] = {}
    found = {}
    for report in outcome.reports:
        name = report.plant
        if name.startswith("shift"):
            shifts[report.cell] = shifts.get(report.cell, 0) + 1
            name = f"shift {shifts[report.cell]}"
        assert (report.cell, name) not in found
        found[report.cell, name] = report
    assert set(shifts.values()) == {2}
    return found


@pytest.mark.parametrize("cell", ["t/a", "t/b", "t/f"])
def test_rates_agree_with_theory(reports: dict[tuple[str, str], PlantReport], cell: str) -> None:
    rates = [reports[cell, plant].rate for plant in ("none", "shift 1", "shift 2")]
    assert rates == sorted(rates)
    for plant in ("none", "shift 1", "shift 2"):
        report = reports[cell, plant]
        assert report.theory is not None
        assert report.rate == pytest.approx(report.theory, abs=0.08)


def test_false_alarms_are_rare(reports: dict[tuple[str, str], PlantReport]) -> None:
    assert all(r.rate <= 0.07 for (_, plant), r in reports.items() if plant == "none")


def test_two_margins_are_found(reports: dict[tuple[str, str], PlantReport]) -> None:
    assert all(r.rate > 0.9 for (_, plant), r in reports.items() if plant == "shift 2")


def test_wrong_n_and_wrong_unit_are_always_found(
    reports: dict[tuple[str, str], PlantReport],
) -> None:
    for plant in ("wrong n", "percent as fraction"):
        assert all(reports[cell, plant].found for cell in ("t/a", "t/b", "t/f"))


def test_flipped_labels_are_found_away_from_a_half(
    reports: dict[tuple[str, str], PlantReport],
) -> None:
    assert reports["t/a", "flipped labels"].found == 1
    assert reports["t/b", "flipped labels"].found == 0  # half of the items stays half


def test_a_plant_leaves_the_subject_alone() -> None:
    before = SUBJECT.results
    for plant in STRUCTURAL.values():
        for cell in MEASURED:
            plant(SUBJECT, cell.id)
    assert SUBJECT.results == before


def test_swapped_rows_exchange_values() -> None:
    altered = swapped(SUBJECT, "t/a")
    assert altered is not None
    found = {cell.id: cell.value for cell in altered.results.cells}
    assert (found["t/a"], found["t/b"]) == (100 * 430 / 868, 100 * 9 / 208)


def test_duplicated_seed_is_found_by_its_labels() -> None:
    lines_ = [labels("a", "1010110010"), labels("b", "0110101011")]
    seeds = [SeedValue(seed=s, value=10.0 * line.k, k=line.k, n=10, labels=line.id)
             for s, line in zip("01", lines_, strict=True)]  # fmt: skip
    cell = Cell(id="t/s", unit="percent", value=sum(s.value for s in seeds) / 2, seeds=seeds)
    expected = expected_cell("t/s", "55", tolerance=tolerance("seeds", margin="50"))
    subject = Subject(expected=expectation([expected]), results=table([cell]),
                      labels=memory(*lines_))  # fmt: skip
    found = {r.plant: r.found for r in selftest(subject, trials=10).reports}
    assert found["duplicated seed"] == 1
    turned = flipped(subject, "t/s")
    assert turned is not None
    assert [s.k for s in turned.results.cells[0].seeds] == [10 - s.k for s in seeds if s.k]


def test_lines_name_rates_beside_theory() -> None:
    said = list(lines(selftest(SUBJECT, trials=20)))
    assert said[0].startswith("selftest t/a binomial: false alarms ")
    assert "(theory " in said[0]
    assert any("no false alarm" in line for line in said if " t/x " in line)
    assert said[-1] == "selftest t/z: not tested, nothing to compare"


@pytest.mark.parametrize(
    ("unit", "bound", "side", "size"),
    [
        ("percent", "60", "at_most", 5.0),
        ("percent", "60", "at_least", -5.0),
        ("fraction", "0.6", "at_most", 0.05),
        ("loss", "60", "at_most", 3.0),
        ("loss", "0.5", "at_most", 0.05),
    ],
)
def test_a_bound_is_crossed_by_a_twentieth_of_the_whole(
    unit: str, bound: str, side: str, size: float
) -> None:
    """Of the scale, or where there is none of the bound, and never of less than one."""
    rule = tolerance("bound", bound=bound, side=side)
    cell = expected_cell("t/s", None, unit=unit, tolerance=rule)
    values = [float(bound) * share for share in (1.0, 1.01, 0.99)]
    subject = Subject(expected=expectation([cell]), results=table([seeded("t/s", values, unit)]))
    plants = [r.plant for r in selftest(subject, trials=1).reports if r.plant.startswith("shift")]
    assert [float(plant.split()[1]) for plant in plants] == pytest.approx([size, 2 * size])
