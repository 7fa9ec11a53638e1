"""How often verdicts are right, by simulation: false alarms of true replications, detected shifts.

python -m benchmarks.simulate_verdicts [--name after] [--runs 300] [--only PART ...] [--missing]

writes ``benchmarks/verdicts.json`` (an entry a name, the other names are kept) and the tables of
``docs/verdicts.md``; it takes ten minutes on one core.

Four kinds of truth are drawn:

- ``gap``: one gap-closed claim of 208 items on each of three rates, asked against 0.85.
- ``paper``: tiny-adapt at full size. The printed rates are the truth; the document's own table and
  the table of the run are both drawn from it, 208 items each. Within a table the labels of an item
  hang together through a normal factor with the given correlation.
- ``mini``: tiny-adapt in miniature. The truth of a pair of models is a training seed drawn from
  those of the reference; the run has other seeds of the same pairs. With ``items`` the prompts are
  drawn anew on both sides, without them the prompts are the reference's own.
- ``experiments``: true replications of every experiment that has reference runs
  (:mod:`benchmarks.simulate_replications`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np
from msgspec import structs

from benchmarks import simulate_replications, write_verdicts
from kit.manifest.expectation_types import (
    Claim,
    Derived,
    Expectation,
    ExpectedCell,
    Reference,
)
from kit.manifest.load import load_expectation
from kit.results.labels import Labels, LabelTable
from kit.results.types import Cell, Results, SeedValue
from kit.verify.core import Subject, verify
from kit.verify.verdict import Verdict

RECORD = Path(__file__).with_name("verdicts.json")
EXPECTED = Path(__file__).parent.parent / "expected_results" / "defensive_tokens"
N = 208
Rates = dict[str, float]
Shift = Callable[[str], float]


def none(_: str) -> float:
    """No shift: a true replication."""
    return 0.0


@dataclass(frozen=True)
class Moved:
    """Adds points to the rates whose metric and row are meant.

    Attributes:
        points: Percentage points.
        metrics: First letters of the metric.
        rows: First letters of the row; any row when empty.
        but: A row that stays.
        group: The only group; any when empty.
    """

    points: float
    metrics: str = "asr"
    rows: str = ""
    but: str = "undefended"
    group: str = ""

    def __call__(self, id: str) -> float:
        group, metric, row = id.split("/")
        meant = metric.startswith(self.metrics) and row.startswith(self.rows) and row != self.but
        return self.points if meant and self.group in ("", group) else 0.0


def gap_closed(undefended: float, this: float, full: float) -> float:
    """Share of the gap between undefended and fully defended that is closed."""
    return (undefended - this) / (undefended - full)


def drawn_labels(rates: Mapping[str, float], rho: float, random: Any) -> dict[str, Any]:
    """Labels of N items for each rate, correlated over the rates through a normal factor."""
    factor = random.standard_normal(N)
    found = {}
    for id, p in rates.items():
        edge = NormalDist().inv_cdf(min(max(p, 1e-9), 1 - 1e-9))
        own = random.standard_normal(N)
        found[id] = (np.sqrt(rho) * factor + np.sqrt(1 - rho) * own < edge).astype(int)
    return found


def share(id: str, labels: Any) -> tuple[Cell, Labels]:
    """A measured percentage and its labels."""
    k = int(labels.sum())
    cell = Cell(id=id, unit="percent", value=100 * k / N, k=k, n=N, labels=id)
    return cell, Labels(id=id, items=list(range(N)), labels=labels.tolist())


def table(expected: Expectation, cells: Sequence[Cell]) -> Results:
    """A table that fits the expectation."""
    return Results(
        schema_version=1,
        experiment=expected.experiment,
        version=expected.version,
        profile=expected.profile,
        cells=list(cells),
    )


def gap_claim(truth: float, side: str, rho: float, random: Any) -> str:
    """Outcome of one gap-closed claim at a known truth, of rates like the document's."""
    undefended, full = 0.692, 0.019
    rates = {
        "g/asr-max/undefended": undefended,
        "g/asr-max/this": undefended - truth * (undefended - full),
        "g/asr-max/full": full,
    }
    drawn = drawn_labels(rates, max(rho, 0.0), random)
    pairs = [share(id, labels) for id, labels in drawn.items()]
    values = [cell.value or 0.0 for cell, _ in pairs]
    gap = Cell(id="g/gap-closed/this", unit="ratio", value=gap_closed(*values))
    cells = [
        ExpectedCell(id=cell.id, unit=cell.unit, status="unreported", place="-")  # type: ignore[arg-type]
        for cell, _ in pairs
    ]
    rule = Derived(formula="gap_closed", cells=list(rates))
    cells.append(
        ExpectedCell(id=gap.id, unit="ratio", status="unreported", place="-", derived=rule)
    )
    claim = Claim(
        id="c",
        kind="threshold",
        sentence="it closes the gap",
        place="-",
        primary=True,
        cells=[gap.id],
        value="0.85",
        side=side,  # type: ignore[arg-type]
    )
    expected = Expectation(
        schema_version=1,
        experiment="made",
        profile="paper",
        version="1-A",
        cells=cells,
        claims=[claim],
    )
    source = LabelTable({line.id: line for _, line in pairs})
    counts = [cell if rho >= 0 else structs.replace(cell, labels=None) for cell, _ in pairs]
    made = table(expected, [*counts, gap])
    return verify(Subject(expected=expected, results=made, labels=source)).claims[0].outcome


def paper_values(expected: Expectation, shift: Shift) -> tuple[Rates, dict[str, float]]:
    """Rates that items decide, and all other printed numbers, which are taken as they stand."""
    rates, others = {}, {}
    for cell in expected.cells:
        if cell.value is None or cell.derived is not None:
            continue
        if cell.unit == "percent" and cell.id.endswith("/native-published"):
            continue  # quoted from elsewhere, and no run measures it
        # A share that must be met exactly is one of the data set: no prompt decides it.
        exact = cell.tolerance is not None and cell.tolerance.kind == "exact"
        if cell.unit == "percent" and not exact:
            rates[cell.id] = min(max(float(cell.value) + shift(cell.id), 0.0), 100.0) / 100
        else:
            others[cell.id] = float(cell.value)
    return rates, others


def derived_values(expected: Expectation, values: dict[str, float]) -> None:
    """Add what follows from other cells; quoted parts count with their printed value."""
    said = {cell.id: cell.value for cell in expected.cells}
    for cell in expected.cells:
        if cell.derived is None or cell.derived.formula != "gap_closed":
            continue
        parts = [values.get(id, float(said[id] or "nan")) for id in cell.derived.cells]
        values[cell.id] = gap_closed(*parts)


def paper_draw(expected: Expectation, shift: Shift, rho: float, random: Any) -> Verdict:
    """The verdict on one run at full size."""
    rates, others = paper_values(expected, shift)
    cells, lines, values = [], {}, dict(others)
    for id, labels in _with_maxima(expected, drawn_labels(rates, rho, random)).items():
        cell, line = share(id, labels)
        cells.append(cell)
        lines[id] = line
        values[id] = cell.value or 0.0
    derived_values(expected, values)
    listed = {cell.id for cell in cells}
    for said in expected.cells:
        if said.id in values and said.id not in listed:
            value = values[said.id]
            k = round(value * said.n / 100) if said.unit == "percent" and said.n else None
            n = said.n if k is not None else None
            cells.append(Cell(id=said.id, unit=said.unit, value=value, k=k, n=n))
    document = reprinted(expected, rho, random)
    return verify(Subject(document, table(expected, cells), labels=LabelTable(lines)))


def _with_maxima(expected: Expectation, labels: dict[str, Any]) -> dict[str, Any]:
    """The labels, and those of the worst attack where a cell is the maximum of others."""
    for cell in expected.cells:
        if cell.derived is not None and cell.derived.formula == "max":
            labels[cell.id] = max((labels[id] for id in cell.derived.cells), key=lambda x: x.sum())
    return labels


def reprinted(expected: Expectation, rho: float, random: Any) -> Expectation:
    """The document, had it drawn other prompts: redrawn numbers with as many digits."""
    rates, others = paper_values(expected, none)
    drawn = _with_maxima(expected, drawn_labels(rates, rho, random))
    values = others | {id: 100 * float(labels.mean()) for id, labels in drawn.items()}
    derived_values(expected, values)
    cells = []
    for cell in expected.cells:
        if cell.value is None or cell.id not in values:
            cells.append(cell)
            continue
        digits = len(cell.value.partition(".")[2])
        cells.append(structs.replace(cell, value=f"{values[cell.id]:.{digits}f}", k=None))
    return structs.replace(expected, cells=cells)


def mini_draw(expected: Expectation, shift: Shift, items: bool, random: Any) -> Verdict:
    """The verdict on one run of the miniature models."""
    known = {cell.id: _by_seed(cell.reference) for cell in expected.cells if cell.reference}
    seeds = sorted({seed for of in known.values() for seed in of})
    pairs: dict[str, list[str]] = {}
    for seed in seeds:
        pairs.setdefault(seed.rpartition("/")[0], []).append(seed)
    origin = {
        f"{pair}/{100 + number}": str(random.choice(of))
        for number, (pair, of) in enumerate(pairs.items())
    }
    run = _scores(expected, known, origin, shift, items, random)
    cells = []
    for cell in expected.cells:
        if cell.id not in run:
            constant = cell.value if cell.value is not None else None
            if constant is not None:
                cells.append(Cell(id=cell.id, unit=cell.unit, value=float(constant)))
            continue
        values = run[cell.id]
        replicates = [_replicate(seed, value, cell) for seed, value in values.items()]
        mean = fmean(seed.value for seed in replicates)
        cells.append(Cell(id=cell.id, unit=cell.unit, value=mean, seeds=replicates))
    if items:
        again = {seed: str(random.choice(pairs[seed.rpartition("/")[0]])) for seed in seeds}
        expected = _referenced(expected, _scores(expected, known, again, none, items, random))
    return verify(Subject(expected, table(expected, cells)))


def _by_seed(known: Reference) -> dict[str, float]:
    return {seed: float(v) for seed, v in zip(known.seeds, known.values, strict=True)}


def _scores(
    expected: Expectation,
    known: Mapping[str, Mapping[str, float]],
    origin: Mapping[str, str],
    shift: Shift,
    items: bool,
    random: Any,
) -> dict[str, dict[str, float]]:
    """Cell -> replicate -> value, the truth of each replicate being that of its origin."""
    drawn: dict[str, dict[str, float]] = {}
    for cell in expected.cells:
        if cell.unit != "percent" or cell.id not in known or cell.id.startswith("all/"):
            continue
        moved = shift(cell.id)
        drawn[cell.id] = {}
        for seed, source in origin.items():
            if source not in known[cell.id]:
                continue
            p = min(max(known[cell.id][source] + moved, 0.0), 100.0) / 100
            k = int(random.binomial(N, p)) if items else round(N * p)
            drawn[cell.id][seed] = 100 * k / N
    arms = list(dict.fromkeys(id.partition("/")[0] for id in drawn))
    for cell in expected.cells:
        group, _, rest = cell.id.partition("/")
        if cell.id in drawn or cell.id not in known:
            continue
        pooled: dict[str, float] = {}
        for arm in arms if group == "all" else [group]:
            pooled |= drawn.get(f"{arm}/{rest}", {}) or _gaps(drawn, arm, rest)
        if pooled:
            drawn[cell.id] = pooled
    return drawn


def _gaps(drawn: Mapping[str, Mapping[str, float]], arm: str, rest: str) -> dict[str, float]:
    metric, _, row = rest.partition("/")
    if metric != "gap-closed":
        return {}
    parts = [drawn.get(f"{arm}/asr-max/{name}", {}) for name in ("undefended", row, "native")]
    return {seed: gap_closed(*(part[seed] for part in parts)) for seed in parts[0]}


def _replicate(seed: str, value: float, cell: ExpectedCell) -> SeedValue:
    if cell.unit != "percent":
        return SeedValue(seed=seed, value=value)
    return SeedValue(seed=seed, value=value, k=round(value * N / 100), n=N)


def _referenced(expected: Expectation, values: Mapping[str, Mapping[str, float]]) -> Expectation:
    cells = []
    for cell in expected.cells:
        if cell.id not in values or cell.reference is None:
            cells.append(cell)
            continue
        of = values[cell.id]
        numbers = [f"{value:.12g}" for value in of.values()]
        again = structs.replace(
            cell.reference,
            mean=f"{fmean(of.values()):.12g}",
            sd=f"{stdev(of.values()):.12g}",
            values=numbers,
            seeds=list(of),
        )
        cells.append(structs.replace(cell, reference=again))
    return structs.replace(expected, cells=cells)


def counted(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Shares over the runs; by cell how often it deviates, and how often a difference is shown."""
    runs = len(verdicts)
    cells: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        for cell in verdict.cells:
            if cell.p is None and cell.verdict in ("not-compared", "missing"):
                continue
            cells.setdefault(cell.id, Counter()).update(
                {
                    "deviates": int(cell.verdict == "deviates"),
                    "differs": int(cell.p is not None and cell.p < 0.05),
                }
            )
    claims: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        for claim in verdict.claims:
            if claim.primary:
                claims.setdefault(claim.id, Counter()).update([claim.outcome])
    tables = list(dict.fromkeys(line.table for verdict in verdicts for line in verdict.omnibus))
    return {
        "runs": runs,
        "verdicts": _shares(Counter(verdict.verdict for verdict in verdicts), runs),
        "omnibus": sum(any(line.exceeds for line in v.omnibus) for v in verdicts) / runs,
        "omnibus_tables": {
            name: sum(line.exceeds for v in verdicts for line in v.omnibus if line.table == name)
            / runs
            for name in tables
        },
        "any_cell_deviates": sum(
            any(cell.verdict == "deviates" for cell in v.cells) for v in verdicts
        )
        / runs,
        "cells": {
            id: {what: round(count / runs, 4) for what, count in found.items()}
            for id, found in cells.items()
        },
        "claims": {id: _shares(found, runs) for id, found in claims.items()},
    }


def _shares(counts: Mapping[str, int], runs: int) -> dict[str, float]:
    return {name: round(count / runs, 4) for name, count in sorted(counts.items())}


PAPER: dict[str, tuple[Shift, float]] = {
    "equal": (none, 0.5),
    "equal, labels independent": (none, 0.0),
    "adapt +1": (Moved(1, rows="adapt"), 0.5),
    "adapt +2": (Moved(2, rows="adapt"), 0.5),
    "adapt +4": (Moved(4, rows="adapt"), 0.5),
    "adapt +8": (Moved(8, rows="adapt"), 0.5),
    "defended +4": (Moved(4), 0.5),
    "defended +8": (Moved(8), 0.5),
    "defended -8": (Moved(-8), 0.5),
}
CENTRAL = "newer-version/asr-max/adapt-200"
MINI: dict[str, tuple[Shift, bool]] = {
    "equal": (none, True),
    "equal, same prompts": (none, False),
    "central cell +8": (Moved(8, "asr-max", "adapt-200", group="newer-version"), True),
    "every ASR cell +8": (Moved(8, but=""), True),
    "every ASR cell -8": (Moved(-8, but=""), True),
    "every ASR cell +8, same prompts": (Moved(8, but=""), False),
    "every ASR cell -8, same prompts": (Moved(-8, but=""), False),
}
GAPS = [
    (truth, side, rho)
    for rho in (0.5, 0.0, -1.0)
    for truth, side in [
        *((t, "at_least") for t in (0.75, 0.80, 0.84, 0.85, 0.86, 0.90, 0.95)),
        (0.85, "at_most"),
    ]
]
"""A correlation of -1 stands for labels that nobody has: independent rates, counts only."""


def _gap_line(runs: int, seed: int, which: tuple[float, str, float]) -> dict[str, Any]:
    truth, side, rho = which
    random = np.random.default_rng(
        [seed, round(1000 * truth), side == "at_most", 10 + round(10 * rho)]
    )
    outcomes = Counter(gap_claim(truth, side, rho, random) for _ in range(runs))
    return {"truth": truth, "side": side, "rho": rho, "runs": runs} | _shares(outcomes, runs)


def _paper_line(runs: int, seed: int, name: str) -> dict[str, Any]:
    expected = load_expectation(EXPECTED / "tiny-adapt.paper.yaml")
    random = np.random.default_rng([seed, 1, list(PAPER).index(name)])
    runs = 4 * runs if name.startswith("equal") else runs
    return counted([paper_draw(expected, *PAPER[name], random) for _ in range(runs)])


def _mini_line(runs: int, seed: int, name: str) -> dict[str, Any]:
    expected = load_expectation(EXPECTED / "tiny-adapt.mini.yaml")
    random = np.random.default_rng([seed, 2, list(MINI).index(name)])
    return counted([mini_draw(expected, *MINI[name], random) for _ in range(runs)])


PARTS = ("gap", "paper", "mini", "experiments")


def simulate(
    runs: int,
    seed: int,
    workers: int,
    parts: Sequence[str] = PARTS,
    experiments: Sequence[str] = (),
) -> dict[str, Any]:
    """The simulations of these parts; of some experiments, where any are named."""
    made: dict[str, Any] = {"seed": seed}
    with ProcessPoolExecutor(workers) as pool:
        if "gap" in parts:
            made["gap"] = list(pool.map(partial(_gap_line, 4 * runs, seed), GAPS))
        if "paper" in parts:
            lines = pool.map(partial(_paper_line, runs, seed), PAPER)
            made["paper"] = dict(zip(PAPER, lines, strict=True))
        if "mini" in parts:
            lines = pool.map(partial(_mini_line, runs, seed), MINI)
            made["mini"] = dict(zip(MINI, lines, strict=True))
            made["rates"] = {
                cell.id: float(cell.reference.mean)
                for cell in load_expectation(EXPECTED / "tiny-adapt.mini.yaml").cells
                if cell.reference and "/asr-max/" in cell.id and not cell.id.startswith("all/")
            }
        if "experiments" in parts:
            names = [*experiments] or list(simulate_replications.experiments())
            lines = pool.map(partial(simulate_replications.line, runs, seed), names)
            made["experiments"] = dict(zip(names, lines, strict=True))
    return made


def main() -> None:
    """Simulate and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--name", default="after", help="entry of the record")
    parser.add_argument("--runs", type=int, default=300, help="runs a truth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts, not all")
    parser.add_argument("--experiments", nargs="+", default=[], help="some; the others are kept")
    parser.add_argument("--missing", action="store_true", help="experiments not in the record yet")
    args = parser.parse_args()
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    if args.missing:
        there = known.get(args.name, {}).get("experiments", {})
        args.experiments = [one for one in simulate_replications.experiments() if one not in there]
        if not args.experiments:
            parser.exit(message="no experiment is missing\n")
    commit = (
        os.environ.get("KIT_COMMIT")
        or subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            cwd=RECORD.parent,
        ).stdout.strip()
    )
    about = {"commit": commit, "date": datetime.now(UTC).date().isoformat()}
    parts = ["experiments"] if args.missing else args.only
    each = [[name] for name in args.experiments] if parts == ["experiments"] else []
    for experiments in each or [args.experiments]:  # written one by one: what is done stays done
        made = simulate(args.runs, args.seed, args.workers, parts, experiments)
        if experiments and "experiments" in made:
            kept = known.get(args.name, {}).get("experiments", {}) | made["experiments"]
            made["experiments"] = dict(sorted(kept.items()))
        later = ["experiments added later"] if args.missing else parts
        commits = known.get(args.name, {}).get("commits", {}) | dict.fromkeys(later, commit)
        now = {} if args.missing else about
        known[args.name] = known.get(args.name, {}) | now | {"commits": commits} | made
        RECORD.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    if {"before", "after"} <= known.keys():
        write_verdicts.main()


if __name__ == "__main__":
    main()
