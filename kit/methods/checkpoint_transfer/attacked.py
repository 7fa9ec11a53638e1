"""A tampering attack as cells of the family's table, and as a curve.

Cells are ``attacked/<metric>/<row>@<attack>@step-<n>`` and ``@end``, with the label of each
question, and ``attacked/<metric>-probability/...`` for the mean probability of the right option, as
the log's tables have them. The curve is ``attacked/<metric>-under-attack/<row>@<attack>``, of which
claims ask the maximum or the first crossing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kit.results.builder import Observation, TableBuilder
from kit.results.curves import Line

UNDER_ATTACK = "under-attack"
END = "end"


def add_attack(
    table: TableBuilder,
    here: Observation,
    row: str,
    trajectory: Mapping[str, Any],
    steps: Sequence[int],
) -> None:
    """Add what was measured of one attack.

    Args:
        table: Of the experiment.
        here: Where the attack stands; its settings name the attack.
        row: The attacked model.
        trajectory: The attack's file (:func:`kit.tampering.watched.record`).
        steps: Which of the measured steps are cells, beside 0 and the end; a shorter attack has
            none of those beyond its end.

    Raises:
        ValueError: A step that was not measured.
    """
    points = trajectory["points"]
    last = points[-1][0]
    measured = {step for step, _ in points}
    missing = [step for step in steps if step <= last and step not in measured]
    if missing:
        raise ValueError(f"attack step {missing[0]} was not measured")
    for metric, questions in trajectory["questions"].items():
        curve: list[tuple[float, ...]] = []
        for step, values in points:
            if metric not in values:
                continue
            picked = values["picks"][metric]
            right = [int(a == b) for a, b in zip(picked, questions["answers"], strict=True)]
            curve.append((step, 100 * sum(right) / len(right), sum(right), len(right)))
            names = [f"step-{step}"] if step == 0 or step in steps else []
            for name in [*names, *([END] if step == last and step else [])]:
                origin = replace(here.origin, settings=(*here.origin.settings, name))
                at = table.at(origin)
                at.proportion(
                    metric,
                    row,
                    right,
                    questions["items"],
                    choices=list(picked),
                    answers=list(questions["answers"]),
                )
                probability = values["probability"][metric]
                at.number(f"{metric}-probability", row, probability, "fraction")
        here.trajectory(_line(metric, row), curve)


def _line(metric: str, row: str) -> Line:
    return Line(
        figure=f"{metric}-{UNDER_ATTACK}",
        title=f"{metric} under attack",
        x_label="attack steps",
        y_label="share of questions answered right",
        unit="percent",
        name=row,
    )
