"""False alarms of each experiment in miniature: verdicts on runs that are true replications.

A part of ``python -m benchmarks.simulate_verdicts``; alone ``python -m
benchmarks.simulate_replications RUNS FILE`` writes the lines of the kit that is imported, so that
an older commit can be asked the same.

Every cell with reference runs is drawn anew, for the run and for the reference alike. The
replicates of a reference have a mean and a covariance over all cells of an experiment; new ones are
normal with both, so that cells hang together as they do in truth. Where the replicates are training
seeds of pairs of models (``pair/seed``), mean and covariance are those of the pair. Proportions are
cut to what is possible and rounded to whole items; derived cells follow from their parts. A truth
``other prompts`` adds the sampling of items where replicates of a pair share their prompts.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from msgspec import structs

from kit.manifest.expectation_types import Expectation, ExpectedCell
from kit.manifest.load import load_expectation
from kit.results.types import Cell, Results, SeedValue
from kit.verify.core import Subject, verify

EXPECTED = Path(__file__).parent.parent / "expected_results"
FORMULAS = {
    "gap_closed": lambda x: (x[0] - x[1]) / (x[0] - x[2]),
    "max": max,
    "difference": lambda x: x[0] - x[1],
    "ratio": lambda x: x[0] / x[1],
    "mean": fmean,
}
Values = dict[str, dict[str, float]]
"""Cell -> replicate -> value."""


def experiments() -> dict[str, Expectation]:
    """Those in miniature with reference runs, by name."""
    found = (load_expectation(path) for path in sorted(EXPECTED.glob("*/*.mini.yaml")))
    return {one.experiment: one for one in found if any(cell.reference for cell in one.cells)}


def known(expected: Expectation) -> Values:
    """The reference's values of each replicate."""
    return {
        cell.id: dict(zip(cell.reference.seeds, map(float, cell.reference.values), strict=True))
        for cell in expected.cells
        if cell.reference is not None and cell.reference.seeds
    }


def strata(values: Values) -> dict[str, list[str]]:
    """Replicates that differ by chance alone: those of a pair, or all of them."""
    made: dict[str, list[str]] = {}
    for seed in dict.fromkeys(seed for of in values.values() for seed in of):
        made.setdefault(seed.rpartition("/")[0], []).append(seed)
    return made


def drawn(expected: Expectation, first: int, items: int, random: Any) -> Values:
    """As many new replicates as the reference has, numbered from ``first``.

    Args:
        expected: With its reference.
        first: Number of the first new seed of a stratum.
        items: Of a proportion that is sampled again; 0 for none.
        random: Generator.
    """
    values = known(expected)
    cells = {cell.id: cell for cell in expected.cells}
    made: Values = {id: {} for id in values}
    for name, seeds in strata(values).items():
        weights = random.standard_normal((len(seeds), len(seeds)))
        for id, of in values.items():
            here = np.array([of[seed] for seed in seeds if seed in of])
            if not len(here):
                continue
            known_here = [at for at, seed in enumerate(seeds) if seed in of]
            off = (here - here.mean()) / np.sqrt(max(len(here) - 1, 1))
            for at in known_here:
                new = here.mean() + float(weights[at][known_here] @ off)
                seed = f"{name}/{first + at}".lstrip("/")
                made[id][seed] = _possible(new, cells[id], items, random)
    _derive(expected, made)
    return made


def _possible(value: float, cell: ExpectedCell, items: int, random: Any) -> float:
    whole = {"percent": 100.0, "fraction": 1.0}.get(cell.unit)
    if whole is None:
        return value
    n = items or cell.n or 0
    share = min(max(value / whole, 0.0), 1.0)
    if items:
        share = int(random.binomial(n, share)) / n
    return whole * (round(share * n) / n if n else share)


def _derive(expected: Expectation, made: Values) -> None:
    for cell in expected.cells:
        rule = cell.derived
        if rule is None or cell.id not in made:
            continue
        parts = [made.get(id, {}) for id in rule.cells]
        if all(made[cell.id].keys() <= part.keys() for part in parts):
            for seed in list(made[cell.id]):
                try:
                    value = FORMULAS[rule.formula]([part[seed] for part in parts])
                except ZeroDivisionError:
                    del made[cell.id][seed]
                    continue
                made[cell.id][seed] = value


def referenced(expected: Expectation, values: Values) -> Expectation:
    """The expectation with these values as its reference."""
    cells = []
    for cell in expected.cells:
        of = values.get(cell.id)
        if cell.reference is None or not of or len(of) < 2:
            cells.append(cell)
            continue
        numbers = {
            "mean": f"{fmean(of.values()):.12g}",
            "sd": f"{stdev(of.values()):.12g}",
            "values": [f"{value:.12g}" for value in of.values()],
            "seeds": list(of),
            "n_seeds": len(of),
        }
        known_now = structs.replace(cell.reference, **numbers)
        cells.append(structs.replace(cell, reference=known_now))
    return structs.replace(expected, cells=cells)


def table(expected: Expectation, values: Values) -> Results:
    """The table of a run that measured these values; printed ones stand as they are."""
    cells = []
    for cell in expected.cells:
        of = values.get(cell.id)
        if of:
            seeds = [SeedValue(seed=seed, value=value) for seed, value in of.items()]
            mean = fmean(of.values())
            cells.append(Cell(id=cell.id, unit=cell.unit, value=mean, seeds=seeds))
        elif cell.value is not None:
            cells.append(Cell(id=cell.id, unit=cell.unit, value=float(cell.value)))
    return Results(
        schema_version=1,
        experiment=expected.experiment,
        version=expected.version,
        profile=expected.profile,
        cells=cells,
    )


def replications(expected: Expectation, runs: int, items: int, seed: int) -> dict[str, Any]:
    """Verdicts on ``runs`` true replications, and why those that are not REPRODUCED are not."""
    random = np.random.default_rng([seed, len(expected.cells), items])
    verdicts: Counter[str] = Counter()
    why: Counter[str] = Counter()
    deviating: list[float] = []
    for _ in range(runs):
        now, then = (drawn(expected, first, items, random) for first in (100, 900))
        verdict = verify(Subject(referenced(expected, then), table(expected, now)))
        verdicts[verdict.verdict] += 1
        why.update(f"{c.id} {c.outcome}" for c in verdict.claims if c.primary)
        compared = [cell.verdict == "deviates" for cell in verdict.cells if cell.p is not None]
        deviating.append(fmean(compared) if compared else 0.0)
        why["omnibus line exceeded"] += any(line.exceeds for line in verdict.omnibus)
    return {
        "runs": runs,
        "verdicts": _shares(verdicts, runs),
        "cells_that_deviate": round(fmean(deviating), 4),
        "why": _shares({k: n for k, n in why.items() if not k.endswith(" holds") and n}, runs),
    }


def _shares(counts: Mapping[str, int], runs: int) -> dict[str, float]:
    return {name: round(count / runs, 4) for name, count in sorted(counts.items())}


def line(runs: int, seed: int, name: str) -> dict[str, Any]:
    """An experiment; of those in pairs also with other prompts."""
    expected = experiments()[name]
    made = {"equal": replications(expected, runs, 0, seed)}
    if "" not in strata(known(expected)):
        made["equal, other prompts"] = replications(expected, runs, 208, seed)
    return made


def main(runs: str, file: str) -> None:
    """All experiments, one after the other."""
    made = {name: line(int(runs), 0, name) for name in experiments()}
    Path(file).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
