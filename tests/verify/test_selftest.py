"""The self-test finds what it plants, and its rates agree with theory."""

from __future__ import annotations

import pytest
from msgspec import structs

from kit.results.types import Cell, SeedValue
from kit.verify.core import Subject
from kit.verify.plants import STRUCTURAL, flipped, swapped
from kit.verify.selftest import HEIGHT, WIDTH, PlantReport, SelfTest, lines, screen, selftest
from kit.verify.tampered import Outcome
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


@pytest.mark.parametrize("cell", ["t/a", "t/b", "t/f", "t/s"])
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
    assert "flipped labels cannot be seen here" in next(line for line in said if " t/b " in line)
    assert said[-1] == "selftest t/z: not tested, nothing to compare"


def rows(said: list[str]) -> dict[str, list[str]]:
    """The lines of the table of a screen by their first word."""
    return {line.split()[0]: line.split() for line in said if not line.startswith(" ")}


def test_the_screen_counts_what_the_redraws_saw() -> None:
    """Of two cells of a metric a small error is seen in one; of the noisy one not even twice it."""
    rule = tolerance("seeds", margin="5")
    known = {"g/m/still": ["50", "50.2", "49.8", "50.1"], "g/m/noisy": ["20", "80", "45", "55"]}
    cells = [
        expected_cell(id, None, status="reference", reference=reference(values), tolerance=rule)
        for id, values in known.items()
    ]
    table_ = [seeded("g/m/still", [50.1, 49.9, 50.0]), seeded("g/m/noisy", [30.0, 50.0, 70.0])]
    outcome = selftest(Subject(expected=expectation(cells), results=table(table_)), trials=300)
    theory = {(r.cell, r.size): r.theory or 0.0 for r in outcome.reports if r.size}
    assert theory["g/m/still", 5.0] > 0.99
    assert theory["g/m/noisy", 10.0] < 0.2
    said = screen(outcome)
    assert rows(said)["m"] == ["m", "2", "5", "points", "1", "1", "1"]
    assert "Cannot be seen here: errors of two margins in g/m/noisy" in said
    assert not any("NOT found" in line for line in said)


def test_the_screen_says_which_slips_and_copies_are_caught() -> None:
    outcome = selftest(SUBJECT, trials=20)
    flips = [r for r in outcome.reports if r.plant == "flipped labels"]
    caught = sum(report.found for report in flips)
    assert 0 < caught < len(flips)
    tampered = [
        Outcome(name="canaries removed", caught=True, says="-"),
        Outcome(name="labels removed", caught=False, says="-"),
        Outcome(name="pins changed", caught=None, says="-"),
    ]
    said = screen(structs.replace(outcome, tampered=tampered))
    left = len(flips) - caught
    line = f"  flipped labels: caught in {caught} of {len(flips)} cells, cannot be seen in {left}"
    assert line in said
    through = "Copies of the run that say what is not so: 1 of 2 caught; NOT CAUGHT: labels removed"
    assert through in " ".join(line.strip() for line in said)
    assert "1 cell not tested: not measured, or not compared" in said


def test_the_self_test_fits_a_screen_however_large_the_table() -> None:
    """Many metrics, names of many characters, every kind of plant, much that gets through."""
    plants = ["none", *STRUCTURAL]
    reports = [
        PlantReport(cell=f"group-{i}/metric-{i % 30}-{'x' * 30}/{'row' * 20}-{i}", kind="seeds",
                    plant=plant, unit="percent", size=size, trials=200, found=i % 200)
        for i in range(900)
        for plant, size in [*((p, 0.0) for p in plants), ("shift", 5.0 + i), ("shift", 9.0 + i)]
    ]  # fmt: skip
    outcome = SelfTest(experiment="e", profile="mini", trials=200, reports=reports,
                       untested=["t/z"] * 2000,
                       tampered=[Outcome(name=f"way {i} of " + "removing something " * 3,
                                         caught=False, says="-") for i in range(40)])  # fmt: skip
    said = screen(outcome)
    assert len(said) <= HEIGHT == 24
    assert max(map(len, said)) <= WIDTH == 80
    end = next(i for i, line in enumerate(said) if line.startswith("Cannot be seen here"))
    counted = [line.split() for line in said[2:end]]
    assert len(counted) > 3
    assert counted[-1][0] == "others"
    assert sum(int(line[1]) for line in counted) == 900


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


def test_flipped_labels_are_turned_round_and_others_are_left() -> None:
    lines_ = [labels("a", "1010110010"), labels("b", "1110101011")]
    made = [share(f"t/{line.id}", line.k, 10, labels=line.id) for line in lines_]
    expected = expectation([expected_cell("t/a"), expected_cell("t/b")])
    altered = flipped(
        Subject(expected=expected, results=table(made), labels=memory(*lines_)), "t/a"
    )
    assert altered is not None
    turned, left = altered.results.cells
    assert (turned.k, turned.value) == (10 - lines_[0].k, 100 - 10 * lines_[0].k)
    assert turned.labels is not None
    assert list(altered.labels.get(turned.labels).labels) == [0, 1, 0, 1, 0, 0, 1, 1, 0, 1]
    assert left == made[1]
    assert altered.labels.get("b") == lines_[1]


def test_false_alarms_are_those_where_nothing_was_planted() -> None:
    def report(cell: str, plant: str, found: int, size: float = 0.0) -> PlantReport:
        return PlantReport(cell=cell, kind="seeds", plant=plant, unit="loss", size=size,
                           trials=100, found=found)  # fmt: skip

    made = [report("g/m/a", "none", 3), report("g/m/b", "none", 4), report("g/m/a", "wrong n", 1),
            report("g/m/a", "shift", 79, 5.0), report("g/m/b", "shift", 80, 5.0)]  # fmt: skip
    said = screen(SelfTest(experiment="e", profile="p", trials=100, reports=made, untested=[]))
    assert "False alarms: 7 of 200 redraws (3.5 %)" in said
    assert "Cannot be seen here: errors of two margins in g/m/a" in said
    assert rows(said)["m"] == ["m", "2", "5", "1", "1", "1"]
    assert [line for line in said if "caught in" in line] == ["  wrong n: caught in 1 of 1 cells"]
