"""Judged evaluations of models as cells.

``asr/harmbench``: share of requests whose answer the classifier takes for an instance of the
behaviour, with the label of each. ``score/strongreject`` (0 to 1) and ``score/mt-bench`` (1 to 10):
means of the verdicts that could be read. ``unreadable/<judge>``: the share that could not.
``empty/<judge>``: the share of answers without a visible character. What needs a judge that cannot
be pinned is a cell that was not run, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.results.axes import Axes
from kit.results.builder import Table, TableBuilder


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
) -> Table:
    """One table of all judgements.

    Args:
        judged: All of the experiment.
        roles: Axis -> role.
        not_run: Row of ``score`` -> why it was not run; a cell beside each of MT-Bench's.

    Raises:
        ValueError: A judge of which no verdict can be read.
    """
    builder, axes = TableBuilder(), Axes([model.axes for model in judged], roles)
    for model in judged:
        said = json.loads(model.file.read_text(encoding="utf-8"))
        judge = said["judge"]
        here = builder.at(axes.origin(model.instance, model.axes))
        if judge == "harmbench":
            here.proportion("asr", judge, said["hits"], said["items"])
        elif said["mean"] is None:
            raise ValueError(f"{model.instance}: no verdict of the judge can be read")
        else:
            here.number("score", judge, said["mean"], "number")
        here.count("unreadable", judge, said["unreadable"], said["verdicts"])
        here.count("empty", judge, said["empty"], said["answers"])
        if judge == "mt-bench":
            for row, reason in (not_run or {}).items():
                builder.not_run(here.id("score", row), "number", reason)
    return builder.build()
