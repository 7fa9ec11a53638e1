"""DPO win rates during TAR (the paper's D.5), as cells and trajectories.

Of the model in training, on pairs that no training has; and of the attacked model behind the last
inner step of each outer step, on that step's held-out batch. Before the first step every margin is
0 up to rounding, and its sign says nothing: there is no win rate there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from kit.results.axes import Axes
from kit.results.builder import Observation, Table, TableBuilder
from kit.results.curves import Line

SAFEGUARDED, ATTACKED = "safeguarded", "attacked"


@dataclass(frozen=True)
class FinishedTraining:
    """A finished outer loop, as a table step finds it.

    Attributes:
        instance: Its step instance.
        training: Its file.
        axes: Axis -> value.
    """

    instance: str
    training: Path
    axes: Mapping[str, Any]


def tabulate_win_rates(
    trainings: Sequence[FinishedTraining], roles: Mapping[str, str], *, parts: int
) -> tuple[Table, float]:
    """One table of all trainings.

    Cells: ``win-rate/end-safeguarded`` with the label of each pair,
    ``win-rate/part-<n>-attacked`` (mean over a part of the outer steps), ``margin/<start|end>``
    (mean, nats), and the trajectories ``during-training/<safeguarded|attacked>``.

    Args:
        trainings: All of the experiment.
        roles: Axis -> role.
        parts: Equal parts of the outer steps.

    Returns:
        The table, and the largest absolute margin before the first step, which is 0 where the
        reference is the initial model.

    Raises:
        ValueError: A training whose win rate was not measured, or with fewer steps than parts.
    """
    builder, axes = TableBuilder(), Axes([trained.axes for trained in trainings], roles)
    largest = 0.0
    for trained in trainings:
        record = json.loads(trained.training.read_text(encoding="utf-8"))
        attacked = [attack["won"] for step in record["steps"] for attack in step["attacks"]]
        if not record["measured"] or len(attacked) < parts:
            raise ValueError(
                f"{trained.instance}: {len(record['measured'])} win rates measured, "
                f"{len(attacked)} simulated attacks for {parts} parts"
            )
        here = builder.at(axes.origin(trained.instance, trained.axes))
        largest = max(largest, *(abs(m) for m in record["measured"][0][1]["margins"]))
        _safeguarded(here, record)
        for part in range(parts):
            start, stop = (len(attacked) * (part + i) // parts for i in (0, 1))
            share = 100 * fmean(attacked[start:stop])
            here.number("win-rate", f"part-{part + 1}-{ATTACKED}", share, "percent")
        points = [(number + 1, 100 * share) for number, share in enumerate(attacked)]
        here.trajectory(_line(ATTACKED), points)
    return builder.build(), largest


def _safeguarded(here: Observation, record: Mapping[str, Any]) -> None:
    margins = {step: values["margins"] for step, values in record["measured"]}
    won = {step: [int(margin > 0) for margin in of] for step, of in margins.items() if step}
    last = max(margins)
    here.trajectory(
        _line(SAFEGUARDED),
        [(step, 100 * fmean(of), sum(of), len(of)) for step, of in won.items()],
    )
    here.proportion("win-rate", f"end-{SAFEGUARDED}", won[last], record["judged"])
    for row, step in (("start", min(margins)), ("end", last)):
        here.number("margin", row, fmean(margins[step]), "number")


def _line(name: str) -> Line:
    return Line(
        figure="during-training",
        title="pairs whose refusal is preferred more than by the initial model",
        x_label="outer steps",
        y_label="DPO win rate",
        unit="percent",
        name=name,
    )
