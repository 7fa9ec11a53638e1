"""What a TAR expectation declares is what the experiment's table holds: nothing more or less.

A cell that no run can make would be ``missing`` for ever; a cell that no expectation declares could
be taken away unnoticed. The table is made here from stand-in attacks, shaped by the plan.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kit.manifest.load import read_expectation
from kit.methods.tar.gather import tabulate
from kit.methods.tar.pooled import Pooled
from kit.results.builder import Table
from kit.results.plan import Plan, StepInstance
from kit.results.types import Cell, SeedValue
from kit.tampering.trajectory import every
from kit.tampering.watched import FinishedAttack
from kit.tampering.worst_table import Search, tabulate_worst
from tests.steps.test_kinds import CATALOG, PLANNED, plan

TABLES = {"tar/tabulate", "tampering/worst-case"}
SIZES = {
    **{"forget": 240, "trained": 240, "forget-judge": 240, "forget-attacker": 240},
    **{"retain": 300, "benign": 96, "overlap": 96},
}
"""Questions of the miniature world by the name of the measurement."""
DECLARED = [
    (id, profile)
    for id, profile in PLANNED
    if CATALOG.expectation_path(id, profile) is not None
    and any(step.kind in TABLES for step in CATALOG.manifest(id).steps)
]


def stand_in(attack: StepInstance, path: Path, sizes: dict[str, int], random: Random) -> None:
    """The trajectory of an attack on a model that guesses, but knows what it was to retain."""
    settings = attack.params
    names, steps = list(settings["questions"]), settings["steps"]
    points = every(steps, settings["measure_every"])
    middle = min(points, key=lambda step: abs(step - steps / 2))
    seldom = {0, middle, steps}
    asked: dict[str, Any] = {
        name: {
            "items": [f"{name}-{i // 4:03d}-{i % 4}-0" for i in range(sizes[name])],
            "answers": "".join(random.choices("ABCD", k=sizes[name])),
        }
        for name in names
    }
    found: list[tuple[int, dict[str, Any]]] = []
    for step in points:
        now = [n for n in names if n not in settings["seldom"] or step in seldom]
        guesses = {n: "".join(random.choices("ABCD", k=sizes[n])) for n in now}
        picks = {n: asked[n]["answers"] if n == "retain" else guesses[n] for n in now}
        shares = {
            n: sum(map(str.__eq__, picks[n], str(asked[n]["answers"]))) / sizes[n] for n in now
        }
        texts = {"trained-loss": 1.0, "trained-entropy": 2.0}
        kept = texts if "trained" not in settings["seldom"] or step in seldom else {}
        found.append((step, {"picks": picks, **shares, **kept}))
    losses = [1.0] * steps
    path.write_text(json.dumps({"points": found, "losses": losses, "questions": asked}))


def table_of(made: Plan, folder: Path, sizes: dict[str, int]) -> Table:
    """What the experiment's last step makes of stand-in attacks."""
    last, random = made.by_id[made.results], Random(0)
    attacks: list[FinishedAttack] = []
    for name in ("attacks", "further"):
        for id in last.steps[name].instances if name in last.steps else ():
            path = folder / f"{len(attacks)}.json"
            stand_in(made.by_id[id], path, sizes, random)
            attacks.append(FinishedAttack(id, path, made.by_id[id].axes))
    asked = last.params
    if last.kind == "tampering/worst-case":
        return tabulate_worst(attacks, made.roles, Search(**asked))
    over, steps = asked["over"], tuple(asked["steps"])
    pooled = Pooled(over, asked["statistic"], steps) if over else None
    return tabulate(attacks, made.roles, forget=asked["forget"], steps=steps, pooled=pooled)[0]


def parts(cell: Cell) -> Sequence[Cell | SeedValue]:
    """The cell of each replicate, or the cell."""
    return cell.seeds or [cell]


@pytest.mark.parametrize(("experiment", "profile"), DECLARED)
def test_everything_that_a_run_measures_is_declared(
    experiment: str, profile: str, tmp_path: Path
) -> None:
    path = CATALOG.expectation_path(experiment, profile)
    assert path is not None
    expected = read_expectation(path, references=False).value
    _, made = plan(experiment, profile, tmp_path)
    published = {cell.id.split("/")[1]: cell.n for cell in expected.cells if cell.n is not None}
    sizes = SIZES if profile == "mini" else {"trained": 8, **dict.fromkeys(published, 8)}
    table = table_of(made, tmp_path, sizes)
    there = {cell.id: cell for cell in table.cells}
    quoted = {cell.id for cell in expected.cells if cell.status == "quoted"}
    listed = {cell.id.partition(":")[0] for cell in expected.cells if cell.id not in quoted}
    assert not listed & set(expected.present)
    assert listed | set(expected.present) == set(there)
    labelled = {cell.id for cell in expected.cells if cell.labelled}
    with_labels = {cell.id for cell in table.cells if any(part.labels for part in parts(cell))}
    assert labelled == with_labels & {cell.id for cell in expected.cells}
    for cell in expected.cells:
        counted = there.get(cell.id) if profile == "mini" else None
        if counted is not None and cell.id not in quoted:
            counts = {part.n for part in parts(counted)} - {None}
            assert counts == ({cell.n} if cell.n is not None else set()), cell.id
