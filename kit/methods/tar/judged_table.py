"""Judged evaluations of models as cells.

``asr/harmbench``: share of requests whose answer the classifier takes for an instance of the
behaviour, with the label of each. ``score/strongreject`` (0 to 1) and ``score/mt-bench`` (1 to 10):
means of the verdicts that could be read. ``unreadable/<judge>``: the share that could not.
``empty/<judge>``: the share of answers without a visible character. Attack success over several
attacks is averaged in a cell of its own. What needs a judge that cannot
be pinned is a cell that was not run, with the reason.
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
from kit.results.ids import ALL, CellId


@dataclass(frozen=True)
class JudgedModel:
    """A finished judgement.

    Attributes:
        instance: Its step instance.
        file: What :func:`kit.evals.judged_sets.summary` gave.
        axes: Axis -> value.
    """

    instance: str
    file: Path
    axes: Mapping[str, Any]


def tabulate_judged(
    judged: Sequence[JudgedModel],
    roles: Mapping[str, str],
    *,
    not_run: Mapping[str, str] | None = None,
    over: str = "",
    absent: Mapping[str, str] | None = None,
) -> Table:
    """One table of all judgements.

    Args:
        judged: All of the experiment.
        roles: Axis -> role.
        not_run: Row of ``score`` -> why it was not run; a cell beside each of MT-Bench's.
        over: Axis over which ``asr/harmbench`` is averaged, as ``mean-over-<axis>/asr``.
        absent: Setting of that average -> why it was not run.

    Raises:
        ValueError: A judge of which no verdict can be read.
    """
    builder, axes = TableBuilder(), Axes([model.axes for model in judged], roles)
    shares: dict[str, tuple[Observation, list[float]]] = {}
    for model in judged:
        said = json.loads(model.file.read_text(encoding="utf-8"))
        judge = said["judge"]
        here = builder.at(axes.origin(model.instance, model.axes))
        if judge == "harmbench":
            here.proportion("asr", judge, said["hits"], said["items"])
            if over:
                rest = {axis: value for axis, value in model.axes.items() if axis != over}
                mean = builder.at(axes.origin(model.instance, rest))
                name = json.dumps(rest, sort_keys=True)
                shares.setdefault(name, (mean, []))[1].append(here.value("asr", judge))
        elif said["mean"] is None:
            raise ValueError(f"{model.instance}: no verdict of the judge can be read")
        else:
            here.number("score", judge, said["mean"], "number")
        here.count("unreadable", judge, said["unreadable"], said["verdicts"])
        here.count("empty", judge, said["empty"], said["answers"])
        if judge == "mt-bench":
            for row, reason in (not_run or {}).items():
                builder.not_run(here.id("score", row), "number", reason)
    for mean, values in shares.values():
        mean.number(f"mean-over-{over}", "asr", fmean(values), "percent")
    for setting, reason in (absent or {}).items():
        id = CellId(ALL, f"mean-over-{over}", "asr", (setting,))
        builder.not_run(id, "percent", reason)
    return builder.build()
