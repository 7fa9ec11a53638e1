"""All stages' outputs of an experiment, read back and turned into one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.methods.defensive_tokens.checkpoint_choice import chosen_step, with_chosen
from kit.methods.defensive_tokens.result_cells import add_scores, add_statistics
from kit.methods.defensive_tokens.spectrum import add_spectrum
from kit.methods.defensive_tokens.stage_numbers import add_alignment, add_geometry, add_training
from kit.methods.defensive_tokens.utility import add_utility
from kit.results.axes import Axes, Origin
from kit.results.builder import Table, TableBuilder
from kit.results.curves import Line, by_checkpoint


@dataclass(frozen=True)
class StageFolder:
    """One finished stage.

    Attributes:
        instance: Its instance id.
        path: Its outputs.
        axes: Axis name -> value.
    """

    instance: str
    path: Path
    axes: Mapping[str, Any]

    def read(self, name: str) -> Any:
        """One of its JSON files."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Utility:
    """See :func:`kit.methods.defensive_tokens.utility.add_utility`."""

    sets: Sequence[str]
    not_run: str
    given: Mapping[str, float]


def tabulate(
    *,
    evaluations: Sequence[StageFolder],
    alignments: Sequence[StageFolder],
    transfers: Sequence[StageFolder],
    trainings: Sequence[StageFolder],
    native: str,
    published_full: float | None,
    refusal_rule: str,
    loss_window: int,
    loss_divisor: float | None = None,
    utility: Utility | None = None,
    roles: Mapping[str, str] | None = None,
) -> Table:
    """Everything measured, as cells.

    Args:
        evaluations: ``scores.json`` of every evaluated model.
        alignments: ``alignment.json``.
        transfers: ``geometry.json``.
        trainings: ``training.json`` of every training.
        native: Token set that counts as full DefensiveTokens of the target.
        published_full: Its published attack success in percent, where a document gives one.
        refusal_rule: The rule reported as ``refusal``.
        loss_window: Steps over which the first and the last loss are averaged.
        loss_divisor: What a document's log divides the mean loss by; gives the cells ``-printed``.
        utility: Rows whose utility a judge would have to decide.
        roles: Axis -> role, as the manifest declares them.
    """
    stages = [*evaluations, *alignments, *transfers, *trainings]
    axes, table = Axes([stage.axes for stage in stages], roles), TableBuilder()
    origins = {stage.instance: axes.origin(stage.instance, stage.axes) for stage in stages}
    chosen = _chosen(trainings, origins)
    for stage in evaluations:
        here, scores = table.at(origins[stage.instance]), stage.read("scores.json")
        add_scores(
            here,
            with_chosen(scores, chosen.get(_of_any_step(here.origin), {})),
            native=native,
            published_full=published_full,
            refusal_rule=refusal_rule,
        )
        add_statistics(here, scores, refusal_rule)
    for stage in alignments:
        here = table.at(origins[stage.instance])
        add_alignment(here, stage.read("alignment.json"))
        add_spectrum(here, stage.path)
    for stage in transfers:
        add_geometry(table.at(origins[stage.instance]), stage.read("geometry.json"))
    for stage in trainings:
        here, facts = table.at(origins[stage.instance]), stage.read("training.json")
        add_training(here, facts, stage.path, loss_window, loss_divisor)
        line = Line("loss", "training loss", "training step", "loss", "loss", facts["label"])
        here.curve(line, enumerate(facts["losses"], 1))
    table.pool_groups()
    if utility is not None:
        groups = dict.fromkeys(origins[stage.instance].group for stage in evaluations)
        add_utility(table, groups, utility.sets, utility.given, utility.not_run)
    made = table.build()
    curves = [
        series
        for metric in ("asr-max", "gap-closed", "loss-heldout")
        for series in by_checkpoint(made.cells, metric)
    ]
    return replace(made, series=[*curves, *made.series])


def _chosen(
    trainings: Sequence[StageFolder], origins: Mapping[str, Origin]
) -> dict[Origin, dict[str, int]]:
    """Label -> chosen step, for every replicate whose trainings kept items back."""
    chosen: dict[Origin, dict[str, int]] = {}
    for stage in trainings:
        facts = stage.read("training.json")
        if "heldout_losses" in facts:
            steps = chosen.setdefault(_of_any_step(origins[stage.instance]), {})
            steps[facts["label"]] = chosen_step(facts["heldout_losses"])
    return chosen


def _of_any_step(origin: Origin) -> Origin:
    return replace(origin, step="")
