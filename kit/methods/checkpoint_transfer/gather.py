"""From finished runs to a table: accuracies, losses, and what perfect transfer would reach."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.results.axes import Axes
from kit.results.builder import Observation, Table, TableBuilder
from kit.results.ids import CellId

UNLEARNED, ORIGINAL, TEACHER, ORACLE = "unlearned", "original", "teacher", "oracle"
BASELINE = "baseline"
LOSSES = {"remove": "cb-loss", "retain": "retain-kl"}
"""Loss -> its name in the log's tables."""
LOGGED, LAST_STEP = "logged", "last-step"
ANSWERS, TRAINING = "answers.json", "training.json"


@dataclass(frozen=True)
class Finished:
    """Outputs of a step instance.

    Attributes:
        instance: Its id.
        path: Folder with its outputs.
        axes: Axis -> value. A record of a setting axis may name the row of the table in ``row``
            and the setting behind ``@`` in ``at``; without, its id is the row.
    """

    instance: str
    path: Path
    axes: Mapping[str, Any]


def tabulate(
    *,
    unlearned: Sequence[Finished],
    trainings: Sequence[Finished],
    originals: Sequence[Finished],
    teachers: Sequence[Finished],
    oracles: Sequence[Finished],
    roles: Mapping[str, str],
    losses: str,
    checkpoint: str = BASELINE,
) -> Table:
    """All measurements as cells ``<group>/<metric>/<row>[@<setting>]``.

    Args:
        unlearned: Evaluations of the unlearned models.
        trainings: Their trainings.
        originals: Evaluations of the model before.
        teachers: Evaluations of early checkpoints.
        oracles: Oracle patches.
        roles: Axis -> role.
        losses: ``logged``: of the single micro-batch that the published code logs last;
            ``last-step``: means over the last optimizer step.
        checkpoint: Row of the early checkpoint, where no axis names it.

    Raises:
        ValueError: An unknown kind of loss, or something measured twice.
    """
    if losses not in (LOGGED, LAST_STEP):
        raise ValueError(f"unknown losses {losses!r}; known: {LOGGED}, {LAST_STEP}")
    table = TableBuilder()
    groups = (
        (UNLEARNED, unlearned),
        (ORIGINAL, originals),
        (TEACHER, teachers),
        (ORACLE, oracles),
    )
    for group, folders in groups:
        for one in folders:
            here, row = _at(table, one, roles, group)
            if group == TEACHER and row == BASELINE:
                row = checkpoint
            for metric, answers in _read(one.path / ANSWERS).items():
                _add_answers(here, metric, row, answers)
    for one in trainings:
        here, row = _at(table, one, roles, UNLEARNED)
        _add_losses(table, here, row, _read(one.path / TRAINING), losses)
    return table.build()


def _at(
    table: TableBuilder, one: Finished, roles: Mapping[str, str], group: str
) -> tuple[Observation, str]:
    """Where the numbers of an instance belong, and the row of the table."""
    rows, settings = [], []
    for axis, value in one.axes.items():
        if roles.get(axis) == "replicate":
            continue
        record = value if isinstance(value, Mapping) else {"id": value}
        rows.append(str(record.get("row", record["id"])))
        if record.get("at"):
            settings.append(str(record["at"]))
    origin = Axes([one.axes], roles).origin(one.instance, one.axes)
    origin = replace(origin, group=group, settings=tuple(settings))
    return table.at(origin), "-".join(rows) or BASELINE


def _add_answers(here: Observation, metric: str, row: str, answers: Any) -> None:
    """One set of questions; by block where a model was patched at several."""
    if isinstance(answers, dict) and "blocks" in answers:
        for block, found in answers["blocks"].items():
            _add_answers(here, metric, f"block-{block}", found)
        return
    here.proportion(
        metric,
        row,
        answers["right"],
        answers["items"],
        choices=answers["picked"],
        answers=answers["answers"],
    )


def _add_losses(
    table: TableBuilder, here: Observation, row: str, training: Any, losses: str
) -> None:
    for loss, metric in LOSSES.items():
        value = training[losses][loss]
        if value is None:
            id = CellId(here.origin.group, metric, row, here.origin.settings)
            table.not_run(id, "loss", f"diverged at optimizer step {training['diverged_at']}")
        else:
            here.number(metric, row, value, "loss")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
