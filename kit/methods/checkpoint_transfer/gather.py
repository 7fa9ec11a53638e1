"""From finished runs to a table: accuracies, losses, perfect transfer, and attacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.evals.collapse import MOST_ONE_LETTER
from kit.methods.checkpoint_transfer.answers import NOT_FINITE
from kit.methods.checkpoint_transfer.attacked import add_attack
from kit.results.axes import Axes
from kit.results.builder import Observation, Table, TableBuilder
from kit.results.ids import CellId

UNLEARNED, ORIGINAL, TEACHER, ORACLE = "unlearned", "original", "teacher", "oracle"
ATTACKED = "attacked"
BASELINE = "baseline"
LOSSES = {"remove": "cb-loss", "retain": "retain-kl"}
"""Loss -> its name in the log's tables."""
LOGGED, LAST_STEP = "logged", "last-step"
ANSWERS, TRAINING, TRAJECTORY = "answers.json", "training.json", "trajectory.json"
ONE_LETTER = "one-letter"
NUMBERS = {
    "trained-percent": ("trained_percent", "percent"),
    "base-moved": ("base_moved", "count"),
    "muon-tensors": ("muon_tensors", "count"),
}
"""Further cell of a training -> its key in the file, and its unit."""


@dataclass(frozen=True)
class Finished:
    """Outputs of a step instance.

    Attributes:
        instance: Its id.
        path: Folder with its outputs.
        axes: Axis -> value. A record of a setting axis may name the row of the table in ``row``
            and the setting behind ``@`` in ``at``; with neither, its id is the row.
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
    attacks: Sequence[Finished] = (),
    also: Sequence[str] = (),
    attack_steps: Sequence[int] = (),
) -> tuple[Table, list[str]]:
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
        attacks: Attacks on any of the models (:mod:`kit.methods.checkpoint_transfer.attacked`).
        also: Further cells of each unlearned model: ``one-letter`` and names of :data:`NUMBERS`.
        attack_steps: Steps of an attack that are cells, beside 0 and the end.

    Returns:
        The table, and the rows whose picks are nearly all one letter: broken models.

    Raises:
        ValueError: An unknown kind of loss, or something measured twice.
    """
    if losses not in (LOGGED, LAST_STEP):
        raise ValueError(f"unknown losses {losses!r}; known: {LOGGED}, {LAST_STEP}")
    table, collapsed = TableBuilder(), list[str]()
    groups = (
        (UNLEARNED, unlearned),
        (ORIGINAL, originals),
        (TEACHER, teachers),
        (ORACLE, oracles),
    )
    for group, folders in groups:
        for evaluation in folders:
            here, row = _at(table, evaluation, roles, group)
            if group == TEACHER and row == BASELINE:
                row = checkpoint
            for metric, answers in _read(evaluation.path / ANSWERS).items():
                _add_answers(table, here, metric, row, answers)
                if group == UNLEARNED and NOT_FINITE not in answers:
                    most = _most_of_one_letter(answers["picked"])
                    collapsed += [evaluation.instance] if most > MOST_ONE_LETTER else []
                    if ONE_LETTER in also:
                        here.number(f"{metric}-{ONE_LETTER}", row, 100 * most, "percent")
    for trained in trainings:
        here, row = _at(table, trained, roles, UNLEARNED)
        training = _read(trained.path / TRAINING)
        _add_losses(table, here, row, training, losses)
        for name in [name for name in also if name != ONE_LETTER]:
            key, unit = NUMBERS[name]
            here.number(name, row, training[key], unit)
    for attack in attacks:
        here, row = _at(table, attack, roles, ATTACKED)
        add_attack(table, here, row, _read(attack.path / TRAJECTORY), attack_steps)
    return table.build(), sorted(set(collapsed))


def _at(
    table: TableBuilder, finished: Finished, roles: Mapping[str, str], group: str
) -> tuple[Observation, str]:
    """Where the numbers of an instance belong, and the row of the table."""
    rows, settings = [], []
    for axis, value in finished.axes.items():
        if roles.get(axis) == "replicate":
            continue
        record = value if isinstance(value, Mapping) else {"id": value}
        if record.get("at"):
            settings.append(str(record["at"]))
        if "row" in record or not record.get("at"):
            rows.append(str(record.get("row", record["id"])))
    origin = Axes([finished.axes], roles).origin(finished.instance, finished.axes)
    origin = replace(origin, group=group, settings=tuple(settings))
    return table.at(origin), "-".join(rows) or BASELINE


def _add_answers(
    table: TableBuilder, here: Observation, metric: str, row: str, answers: Any
) -> None:
    """One set of questions; by block where a model was patched at several."""
    if "blocks" in answers:
        # The row is taken by the block; a teacher that an axis names becomes a setting.
        named = () if row == BASELINE else (row,)
        origin = replace(here.origin, settings=(*here.origin.settings, *named))
        for block, patched in answers["blocks"].items():
            _add_answers(table, table.at(origin), metric, f"block-{block}", patched)
        return
    if NOT_FINITE in answers:
        table.not_run(here.id(metric, row), "percent", "diverged; its weights are not finite")
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


def _most_of_one_letter(picked: Sequence[str]) -> float:
    return max(picked.count(letter) for letter in set(picked)) / len(picked)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
