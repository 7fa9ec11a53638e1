"""The worst of many attacks on each model as cells and effort curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kit.results.axes import Axes, name_of
from kit.results.builder import Observation, Table, TableBuilder
from kit.results.curves import Line
from kit.tampering.watched import FinishedAttack
from kit.tampering.worst_case import Bound, by_steps, by_trials, candidates_of, halves, worst_case

WORST = "worst"
STEPS = Line(
    figure="effort",
    title="the worst attack that takes at most so many steps",
    x_label="attack steps",
    y_label="share of questions answered right",
    unit="percent",
    name="steps",
)
TRIALS = Line(
    figure="trials",
    title="the worst of so many attacks drawn at random, expected",
    x_label="attacks tried",
    y_label="share of questions answered right",
    unit="percent",
    name="trials",
)


@dataclass(frozen=True)
class Search:
    """How the worst is chosen.

    Attributes:
        axis: The axis that counts the attacks of one search.
        forget: Measurement that an attacker wants high.
        utility: Measurement that he must keep.
        losing: Share of the utility before the attack that may be lost.
        level: Coverage of the interval.
        by: Questions are halved by ``item``, or by ``subject``: everything of an id before its
            last two ``-``.
        seed: Of the halving.
    """

    axis: str
    forget: str
    utility: str
    losing: float
    level: float
    by: str
    seed: int

    def __post_init__(self) -> None:
        """Refuse settings without a meaning."""
        if self.by not in ("item", "subject"):
            raise ValueError(f"questions are halved by 'item' or 'subject', not {self.by!r}")
        if not 0 <= self.losing < 1:
            raise ValueError(f"a share of {self.losing} of the utility cannot be lost")


def tabulate_worst(
    trials: Sequence[FinishedAttack], roles: Mapping[str, str], search: Search
) -> Table:
    """One table of all searches.

    Cells: ``worst/measured`` with the label of each measuring question, ``worst/naive`` (the
    maximum that searches report), ``worst/low`` and ``worst/high`` (the interval for the highest
    true accuracy), ``worst/before`` (the same questions before any attack), ``worst/utility`` (of
    the chosen point), ``worst/step``, and the curves ``effort/steps`` and ``trials/trials``.

    Raises:
        ValueError: An attack without the axis of the search; too few questions or attacks.
    """
    searches: dict[str, list[FinishedAttack]] = {}
    for trial in trials:
        if search.axis not in trial.axes:
            raise ValueError(f"{trial.instance} has no axis {search.axis!r}")
        rest = {a: name_of(v) for a, v in trial.axes.items() if a != search.axis}
        searches.setdefault(json.dumps(rest, sort_keys=True), []).append(trial)
    models = {key: _without(attacks[0], search.axis) for key, attacks in searches.items()}
    axes, builder = Axes(models.values(), roles), TableBuilder()
    for key, attacks in searches.items():
        here = builder.at(axes.origin(attacks[0].instance, models[key]))
        _search(here, attacks, search)
    return builder.build()


def _without(trial: FinishedAttack, axis: str) -> dict[str, Any]:
    return {name: value for name, value in trial.axes.items() if name != axis}


def _search(here: Observation, trials: Sequence[FinishedAttack], search: Search) -> None:
    records = {
        name_of(trial.axes[search.axis]): json.loads(trial.trajectory.read_text(encoding="utf-8"))
        for trial in trials
    }
    candidates, ids = candidates_of(records, search.forget, search.utility)
    start = next(candidate for candidate in candidates if candidate.step == 0)
    bound = Bound.losing(search.losing, start.utility)
    divided = halves(ids, seed=search.seed, group=_subject if search.by == "subject" else None)
    worst = worst_case(candidates, bound, divided, level=search.level)
    (chosen,) = [c for c in candidates if (c.trial, c.step) == (worst.trial, worst.step)]
    measuring = divided.measuring
    asked = [ids[i] for i in measuring]
    here.proportion(WORST, "measured", [int(chosen.right[i]) for i in measuring], asked)
    here.proportion(WORST, "before", [int(start.right[i]) for i in measuring], asked)
    here.count(WORST, "naive", worst.naive.k, worst.naive.n)
    for name, value in (("low", worst.low), ("high", worst.high), ("utility", chosen.utility)):
        here.number(WORST, name, 100 * value, "percent")
    here.number(WORST, "step", worst.step, "count")
    here.trajectory(
        STEPS,
        [(step, 100 * s.value, s.k, s.n) for step, s in by_steps(candidates, bound, divided)],
    )
    here.trajectory(
        TRIALS, [(n, 100 * value) for n, value in by_trials(candidates, bound, divided)]
    )


def _subject(id: str) -> str:
    return id.rsplit("-", 2)[0]
