"""Attacks on safeguarded models as cells, trajectories and signs of collapse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.evals.collapse import MOST_ONE_LETTER
from kit.results.axes import Axes, Origin
from kit.results.builder import Observation, Table, TableBuilder
from kit.results.curves import Line

BEFORE, AFTER = "before", "after"
UNDER_ATTACK = "under-attack"
Collapse = tuple[bool, str, list[str]]


@dataclass(frozen=True)
class Attacked:
    """A finished attack.

    Attributes:
        instance: Its step instance.
        trajectory: Its file (``kit.tampering.watched.record``).
        axes: Axis -> value.
    """

    instance: str
    trajectory: Path
    axes: Mapping[str, Any]


def tabulate(
    attacks: Sequence[Attacked], roles: Mapping[str, str], *, forget: str
) -> tuple[Table, dict[str, Collapse]]:
    """One table of all attacks.

    Cells: ``<measurement>/before`` and ``/after`` with the label of each question,
    ``one-letter/after`` (share of the letter picked most), and the trajectories
    ``under-attack/<measurement>``, of which claims ask the maximum.

    Args:
        attacks: All of the experiment.
        roles: Axis -> role.
        forget: The measurement whose picks must not collapse into one letter.

    Returns:
        The table, and by setting whether an attacked model picks one letter whatever is asked,
        with the cells that would then say nothing.
    """
    builder, axes = TableBuilder(), Axes([one.axes for one in attacks], roles)
    worst: dict[str, tuple[float, Origin, Observation]] = {}
    for one in attacks:
        found = json.loads(one.trajectory.read_text(encoding="utf-8"))
        origin = axes.origin(one.instance, one.axes)
        here = builder.at(origin)
        _cells(here, found)
        most = _most(found["points"][-1][1]["picks"][forget])
        here.number("one-letter", AFTER, 100 * most, "percent")
        name = "@".join(origin.settings) or "all"
        if name not in worst or most > worst[name][0]:
            worst[name] = most, origin, here
    return builder.build(), {
        name.replace("@", "-"): (
            most > MOST_ONE_LETTER,
            f"at most {100 * most:.1f} % of the picks are one letter, in {origin.step}",
            [str(here.id(forget, AFTER)), str(here.id(UNDER_ATTACK, forget))],
        )
        for name, (most, origin, here) in worst.items()
    }


def _cells(here: Observation, found: Mapping[str, Any]) -> None:
    points = found["points"]
    for name, questions in found["questions"].items():
        answers, items = questions["answers"], questions["items"]
        curve: list[tuple[float, ...]] = []
        for step, values in points:
            if name in values:
                right = [int(a == b) for a, b in zip(values["picks"][name], answers, strict=True)]
                curve.append((step, 100 * sum(right) / len(right), sum(right), len(right)))
                if step in (points[0][0], points[-1][0]):
                    row = BEFORE if step == points[0][0] else AFTER
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


def _line(name: str, label: str, unit: str) -> Line:
    return Line(
        figure=UNDER_ATTACK if unit == "percent" else f"{name}-{UNDER_ATTACK}",
        title=f"{label} under attack",
        x_label="attack steps",
        y_label=label,
        unit=unit,
        name=name,
    )


def _most(picks: str) -> float:
    return max(picks.count(letter) for letter in set(picks)) / len(picks)
