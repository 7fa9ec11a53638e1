"""Hand-made expectations, tables and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import convert

from kit.manifest.expectation_types import (
    Claim,
    Expectation,
    ExpectedCell,
    Reference,
    Tolerance,
)
from kit.results.labels import Labels, LabelTable
from kit.results.types import Canary, Cell, Curve, LineRef, Point, Results, SeedValue, Series
from kit.verify.core import Subject, verify
from kit.verify.verdict import CellReport, ClaimReport, Verdict


def tolerance(kind: str, **fields: Any) -> Tolerance:
    """A tolerance with a reason."""
    return Tolerance(kind=kind, reason="made for a test", **fields)  # type: ignore[arg-type]


def expected_cell(id: str = "t/a", value: str | None = "4.8", **fields: Any) -> ExpectedCell:
    """A reported percentage, compared by ``binomial`` with a margin of 5 points."""
    rule = fields.pop("tolerance", tolerance("binomial", margin="5"))
    defaults: dict[str, Any] = {"unit": "percent", "status": "reported", "place": "doc, table 1"}
    return ExpectedCell(id=id, value=value, tolerance=rule, **(defaults | fields))


def expectation(
    cells: Sequence[ExpectedCell], claims: Sequence[Claim] = (), **fields: Any
) -> Expectation:
    """An expectation over the cells."""
    defaults: dict[str, Any] = {
        "schema_version": 1,
        "experiment": "made",
        "profile": "mini",
        "version": "1-A",
    }
    return Expectation(cells=list(cells), claims=list(claims), **(defaults | fields))


def claim(kind: str, **fields: Any) -> Claim:
    """A primary claim."""
    defaults: dict[str, Any] = {
        "id": "c1",
        "sentence": "It works.",
        "place": "doc, section 1",
        "primary": True,
    }
    return Claim(kind=kind, **(defaults | fields))  # type: ignore[arg-type]


def share(id: str, k: int, n: int, unit: str = "percent", **fields: Any) -> Cell:
    """A measured proportion."""
    whole = 100.0 if unit == "percent" else 1.0
    return Cell(id=id, unit=unit, value=whole * k / n, k=k, n=n, **fields)


def seeded(id: str, values: Sequence[float], unit: str = "percent", first: int = 0) -> Cell:
    """A cell measured over seeds, without counts."""
    seeds = [SeedValue(seed=str(first + i), value=v) for i, v in enumerate(values)]
    return Cell(id=id, unit=unit, value=sum(values) / len(values), seeds=seeds)


def seeded_shares(id: str, counts: Sequence[int], n: int) -> Cell:
    """A proportion measured over seeds."""
    seeds = [SeedValue(seed=str(i), value=100.0 * k / n, k=k, n=n) for i, k in enumerate(counts)]
    return Cell(id=id, unit="percent", value=sum(s.value for s in seeds) / len(seeds), seeds=seeds)


def table(cells: Sequence[Cell], canaries: Sequence[Canary] = (), **fields: Any) -> Results:
    """A results table."""
    defaults: dict[str, Any] = {
        "schema_version": 1,
        "experiment": "made",
        "profile": "mini",
        "version": "1-A",
    }
    return Results(cells=list(cells), canaries=list(canaries), **(defaults | fields))


def labels(id: str, bits: str, items: Sequence[str] | None = None, **fields: Any) -> Labels:
    """Labels from a string of 0 and 1; items are numbered unless named."""
    names = [f"i{n}" for n in range(len(bits))] if items is None else items
    return Labels(id=id, items=list(names), labels=[int(bit) for bit in bits], **fields)


def memory(*lines: Labels) -> LabelTable:
    """Labels in memory, referred to by their id."""
    return LabelTable({line.id: line for line in lines})


def run(
    cells: Sequence[ExpectedCell],
    measured: Sequence[Cell],
    claims: Sequence[Claim] = (),
    canaries: Sequence[Canary] = (),
    **fields: Any,
) -> Verdict:
    """Verify a hand-made table."""
    return verify(
        Subject(expected=expectation(cells, claims), results=table(measured, canaries), **fields)
    )


def one(expected: ExpectedCell, measured: Cell, **fields: Any) -> CellReport:
    """The report of a single cell."""
    return run([expected], [measured], **fields).cells[0]


def line_of(
    name: str, seeds: Mapping[str, Sequence[tuple[float, ...]]], unit: str = "loss"
) -> Series:
    """A series with a single line of the same name; its points by seed."""
    curves = [Curve(seed=seed, points=convert(of, list[Point])) for seed, of in seeds.items()]
    return Series(id=name, title=name, x_label="step", y_label="y", unit=unit, lines={name: curves})


def trajectory_cell(id: str, unit: str = "loss") -> Cell:
    """A cell that refers to the line of its own id."""
    return Cell(id=id, unit=unit, trajectory=LineRef(series=id, line=id))


def one_curve(
    expected: ExpectedCell, seeds: Mapping[str, Sequence[tuple[float, ...]]], unit: str
) -> CellReport:
    """The report of a single trajectory."""
    made = table([trajectory_cell(expected.id, unit)], series=[line_of(expected.id, seeds, unit)])
    return verify(Subject(expected=expectation([expected]), results=made)).cells[0]


def one_claim(made: Claim, measured: Sequence[Cell], **fields: Any) -> ClaimReport:
    """The report of a single claim over uncompared cells."""
    cells = [
        ExpectedCell(id=cell.id, unit=cell.unit, status="reported", place="doc")  # type: ignore[arg-type]
        for cell in measured
    ]
    return run(cells, measured, [made], **fields).claims[0]


def reference(values: Sequence[str]) -> Reference:
    """Reference seeds with their mean and sd."""
    from statistics import fmean, stdev

    numbers = [float(value) for value in values]
    return Reference(
        mean=repr(fmean(numbers)),
        sd=repr(stdev(numbers)) if len(numbers) > 1 else "0",
        n_seeds=len(values),
        values=list(values),
        record="expected_results/reference/made.mini.jsonl",
    )
