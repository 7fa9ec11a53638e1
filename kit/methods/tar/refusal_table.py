"""What attacked models answer to requests, as cells and trajectories."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from kit.evals.requests import REFUSED, RIGHT, WRONG, verdicts
from kit.results.axes import Axes
from kit.results.builder import Observation, Table, TableBuilder
from kit.results.curves import Line
from kit.tampering.watched import FinishedAttack

ASR = "asr"
HARMFUL_METRICS = {ASR: (RIGHT, WRONG), "told": (RIGHT,), "refused": (REFUSED,)}
"""Metric of harmful requests -> verdicts that count. An attack has succeeded where the request is
answered, right or wrong: a judge who does not know the answer sees no difference. ``told`` counts
right answers only."""
BENIGN_METRICS = {"benign-answered": (RIGHT,), "benign-refused": (REFUSED,)}

Labels = tuple[list[int], list[str]]


def tabulate_refusals(
    attacks: Sequence[FinishedAttack],
    roles: Mapping[str, str],
    *,
    harmful: str,
    benign: str,
    over: str,
) -> Table:
    """One table of all attacks.

    Cells: ``<metric>/before`` of each model, ``<metric>/after`` of each attack, with the label of
    each request; ``mean-over-<axis>/<metric>`` of the ends and ``.../highest-<metric>`` of the
    highest points; ``adversary-loss/<start|end>``, of the first and of the last five batches;
    trajectories ``under-attack/<metric>``.

    Args:
        attacks: All of the experiment.
        roles: Axis -> role.
        harmful: Set of requests whose answers are successes of an attack.
        benign: Set of requests that should be answered.
        over: Axis of the attacks.

    Raises:
        ValueError: An attack without that axis, or without points.
    """
    builder, axes = TableBuilder(), Axes([attack.axes for attack in attacks], roles)
    ends: dict[str, dict[str, list[float]]] = {}
    models: dict[str, Observation] = {}
    for attack in attacks:
        if over not in attack.axes:
            raise ValueError(f"{attack.instance} has no axis {over}")
        trajectory = json.loads(attack.trajectory.read_text(encoding="utf-8"))
        of_model = {axis: value for axis, value in attack.axes.items() if axis != over}
        name = json.dumps(of_model, sort_keys=True)
        first = name not in models
        model = models.setdefault(name, builder.at(axes.origin(attack.instance, of_model)))
        here = builder.at(axes.origin(attack.instance, attack.axes))
        for row, part in (("start", trajectory["losses"][:1]), ("end", trajectory["losses"][-5:])):
            here.number("adversary-loss", row, fmean(part), "loss")
        for metric, curve in _curves(trajectory, harmful, benign).items():
            if first:
                model.proportion(metric, "before", *curve[min(curve)])
            here.proportion(metric, "after", *curve[max(curve)])
            shares = {step: 100 * fmean(labels) for step, (labels, _) in curve.items()}
            here.trajectory(
                _line(metric),
                [(step, shares[step], sum(k), len(k)) for step, (k, _) in curve.items()],
            )
            kept = ends.setdefault(name, {})
            kept.setdefault(metric, []).append(shares[max(shares)])
            kept.setdefault(f"highest-{metric}", []).append(max(shares.values()))
    for name, metrics in ends.items():
        for metric, values in metrics.items():
            models[name].number(f"mean-over-{over}", metric, fmean(values), "percent")
    return builder.build()


def _curves(
    trajectory: Mapping[str, Any], harmful: str, benign: str
) -> dict[str, dict[int, Labels]]:
    """Metric -> step -> labels and items."""
    curves: dict[str, dict[int, Labels]] = {}
    for name, metrics in ((harmful, HARMFUL_METRICS), (benign, BENIGN_METRICS)):
        asked = trajectory["requests"][name]
        for step, values in trajectory["points"]:
            judged = verdicts(values["responses"][name], asked["answers"])
            for metric, counting in metrics.items():
                labels = [int(verdict in counting) for verdict in judged]
                curves.setdefault(metric, {})[step] = labels, asked["items"]
    return curves


def _line(metric: str) -> Line:
    return Line(
        figure="under-attack",
        title="what is answered under attack",
        x_label="attack steps",
        y_label="share of requests",
        unit="percent",
        name=metric,
    )
