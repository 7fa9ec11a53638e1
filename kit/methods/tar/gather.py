"""Attacks on safeguarded models as cells, trajectories and signs of collapse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from kit.evals.collapse import MOST_ONE_LETTER
from kit.evals.multiple_choice import LETTERS
from kit.methods.tar.pooled import Pooled, pool
from kit.results.axes import Axes, Origin
from kit.results.builder import Observation, Table, TableBuilder
from kit.results.curves import Line
from kit.tampering.watched import FinishedAttack

BEFORE, AFTER = "before", "after"
UNDER_ATTACK = "under-attack"
Collapse = tuple[bool, str, list[str]]


def tabulate(
    attacks: Sequence[FinishedAttack],
    roles: Mapping[str, str],
    *,
    forget: str,
    steps: Sequence[int] = (),
    pooled: Pooled | None = None,
) -> tuple[Table, dict[str, Collapse]]:
    """One table of all attacks.

    Cells: ``<measurement>/before``, ``/after`` and ``/step-<n>`` with the label of each question,
    ``one-letter/after`` (share of the letter picked most), ``picked/<letter>`` (share of each
    letter after the attack), and the trajectories ``under-attack/<measurement>``, of which claims
    ask the maximum, ``loss-`` and ``entropy-under-attack`` and ``adversary/loss``.

    Args:
        attacks: All of the experiment.
        roles: Axis -> role.
        forget: The measurement whose picks must not collapse into one letter.
        steps: Points of the trajectories that get cells of their own.
        pooled: A statistic of the forget measurement over an axis.

    Returns:
        The table, and by setting whether an attacked model picks one letter whatever is asked,
        with the cells that would then say nothing.
    """
    builder, axes = TableBuilder(), Axes([attack.axes for attack in attacks], roles)
    worst: dict[str, tuple[float, Origin, Observation]] = {}
    for attack in attacks:
        trajectory = json.loads(attack.trajectory.read_text(encoding="utf-8"))
        origin = axes.origin(attack.instance, attack.axes)
        here = builder.at(origin)
        _cells(here, trajectory, steps)
        picks = _last_picks(trajectory, forget)
        answers = trajectory["questions"][forget]["answers"]
        for letter in LETTERS[: 1 + max(map(LETTERS.index, picks + answers))]:
            here.count("picked", letter.lower(), picks.count(letter), len(picks))
        most = max(picks.count(letter) for letter in set(picks)) / len(picks)
        here.number("one-letter", AFTER, 100 * most, "percent")
        name = "@".join(origin.settings) or "all"
        if name not in worst or most > worst[name][0]:
            worst[name] = most, origin, here
    if pooled is not None:
        pool(
            builder, axes, [(attack.axes, _curve_of(attack, forget)) for attack in attacks], pooled
        )
    return builder.build(), {
        name.replace("@", "-"): (
            most > MOST_ONE_LETTER,
            f"at most {100 * most:.1f} % of the picks are one letter, in {origin.step}",
            [str(here.id(forget, AFTER)), str(here.id(UNDER_ATTACK, forget))],
        )
        for name, (most, origin, here) in worst.items()
    }


def _curve_of(attack: FinishedAttack, name: str) -> dict[int, float]:
    points = json.loads(attack.trajectory.read_text(encoding="utf-8"))["points"]
    return {step: 100 * values[name] for step, values in points if name in values}


def _last_picks(trajectory: Mapping[str, Any], name: str) -> str:
    return str([values["picks"][name] for _, values in trajectory["points"] if name in values][-1])


def _cells(here: Observation, trajectory: Mapping[str, Any], steps: Sequence[int]) -> None:
    points = trajectory["points"]
    rows = {points[0][0]: [BEFORE], points[-1][0]: [AFTER]}
    for step in steps:
        rows.setdefault(step, []).append(f"step-{step}")
    for name, questions in trajectory["questions"].items():
        answers, items = questions["answers"], questions["items"]
        curve: list[tuple[float, ...]] = []
        for step, values in points:
            if name in values:
                right = [int(a == b) for a, b in zip(values["picks"][name], answers, strict=True)]
                curve.append((step, 100 * sum(right) / len(right), sum(right), len(right)))
                for row in rows.get(step, ()):
                    here.proportion(
                        name,
                        row,
                        right,
                        items,
                        choices=list(values["picks"][name]),
                        answers=list(answers),
                    )
        here.trajectory(_line(name, "share of questions answered right", "percent"), curve)
    for name in ("loss", "entropy"):
        key = f"trained-{name}"
        values_of = [(step, values[key]) for step, values in points if key in values]
        if values_of:
            here.trajectory(_line(name, f"{name} on the attacker's texts", "loss"), values_of)
    here.trajectory(_ADVERSARY, _windows(points, trajectory["losses"]))


_ADVERSARY = Line(
    figure="adversary",
    title="loss of the attacker's own batches",
    x_label="attack steps",
    y_label="loss",
    unit="loss",
    name="loss",
)


def _windows(points: Sequence[Any], losses: Sequence[float]) -> list[tuple[float, float]]:
    """Mean training loss of the steps between two points, at the later one."""
    ends = [step for step, _ in points]
    return [(end, fmean(losses[start:end])) for start, end in pairwise(ends) if losses[start:end]]


def _line(name: str, label: str, unit: str) -> Line:
    return Line(
        figure=UNDER_ATTACK if unit == "percent" else f"{name}-{UNDER_ATTACK}",
        title=f"{label} under attack",
        x_label="attack steps",
        y_label=label,
        unit=unit,
        name=name,
    )
