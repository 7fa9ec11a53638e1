"""Both adaptive attacks as cells and as curves over the attacker's effort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kit.methods.defensive_tokens.adaptive.best_of import any_of, best_of, by_texts, by_tries
from kit.methods.defensive_tokens.gather import StageFolder
from kit.methods.defensive_tokens.result_cells import UNDEFENDED
from kit.results.axes import Axes, Origin
from kit.results.builder import Observation, Table, TableBuilder
from kit.results.curves import Line
from kit.results.ids import Statistic
from kit.tampering.worst_case import halves

ATTACKER = "attacker"
BLIND, AWARE = "blind", "aware"
"""Does the attacker's own model have the defender's prefix?"""


def attack_table(
    searches: Sequence[StageFolder],
    texts: Sequence[StageFolder],
    roles: Mapping[str, str],
    *,
    level: float,
    seed: int,
) -> Table:
    """One table of all attackers and victims.

    Rows are the victims' token sets, the setting is the attacker. Cells: ``asr-gcg`` (searched
    texts at the end of the budget), ``asr-best-of-n`` (the best published text, on the items that
    did not choose it), ``best-of-n-low`` and ``-high`` (interval for the highest true rate),
    ``best-of-n-naive`` (the maximum on all items, which reports print), ``asr-any-text`` (items on
    which any text works). Trajectories: ``gcg`` over queries, ``best-of-n`` and ``any-of-n`` over
    texts.

    Args:
        searches: Steps of the searched attack, with the axis ``attacker``.
        texts: Steps with all published texts.
        roles: Axis -> role.
        level: Coverage of the interval.
        seed: Of the halving of the items.

    Raises:
        ValueError: A search without the axis, or texts without the undefended model.
    """
    for stage in searches:
        if ATTACKER not in stage.axes:
            raise ValueError(f"{stage.instance} has no axis {ATTACKER!r}")
    both = [{**stage.axes, ATTACKER: name} for stage in texts for name in (BLIND, AWARE)]
    axes = Axes([*(stage.axes for stage in searches), *both], roles)
    table = TableBuilder()
    for stage in searches:
        _add_search(table.at(axes.origin(stage.instance, stage.axes)), stage.read("scores.json"))
    for stage in texts:
        origins = {
            name: axes.origin(stage.instance, {**stage.axes, ATTACKER: name})
            for name in (BLIND, AWARE)
        }
        _add_texts(table, origins, stage.read("labels.json"), level, seed)
    return table.build()


def _add_search(here: Observation, scores: Mapping[str, Any]) -> None:
    items = scores["items"]
    for victim, outcome in scores["victims"].items():
        labels = outcome["labels"]
        here.proportion("asr-gcg", victim, labels[-1], items)
        here.count(Statistic.EMPTY, victim, outcome["empty"], len(items))
        line = Line(
            figure="gcg",
            title="items broken by a token search",
            x_label="queries an item",
            y_label="attack success rate",
            unit="percent",
            name=victim,
        )
        counts = [(queries, sum(at)) for queries, at in zip(scores["queries"], labels, strict=True)]
        n = len(items)
        here.trajectory(line, [(queries, 100 * k / n, k, n) for queries, k in counts])
    for own, losses in scores["losses"].items():
        line = Line(
            figure="gcg-loss",
            title="loss of the kept text on the attacker's own model",
            x_label="queries an item",
            y_label="nats a target token",
            unit="loss",
            name=own,
        )
        here.curve(line, zip(scores["queries"], losses, strict=True))


def _add_texts(
    table: TableBuilder,
    origins: Mapping[str, Origin],
    scores: Mapping[str, Any],
    level: float,
    seed: int,
) -> None:
    items, victims = scores["items"], scores["victims"]
    if UNDEFENDED not in victims:
        raise ValueError("the blind attacker chooses on the undefended model, which is missing")
    divided = halves(items, seed=seed)
    asked = [items[i] for i in divided.measuring]
    for victim, labels in victims.items():
        for attacker, origin in origins.items():
            if victim == UNDEFENDED and attacker == AWARE:
                continue  # there is no prefix to know
            here = table.at(origin)
            chosen_on = victims[UNDEFENDED] if attacker == BLIND else labels
            best = best_of(chosen_on, labels, divided, level)
            picks = [int(labels[best.trial][i]) for i in divided.measuring]
            here.proportion("asr-best-of-n", victim, picks, asked)
            line = Line(
                figure="best-of-n",
                title="the best of so many published texts drawn at random, expected",
                x_label="texts tried",
                y_label="attack success rate",
                unit="percent",
                name=victim,
            )
            points = by_texts(chosen_on, labels, divided)
            here.trajectory(line, [(n, 100 * value) for n, value in points])
            if chosen_on is labels:  # he asks the victim itself
                here.number("best-of-n-low", victim, 100 * best.low, "percent")
                here.number("best-of-n-high", victim, 100 * best.high, "percent")
                here.count("best-of-n-naive", victim, best.naive.k, best.naive.n)
                here.proportion("asr-any-text", victim, any_of(labels), items)
                line = Line(
                    figure="any-of-n",
                    title="items on which any of so many published texts works, expected",
                    x_label="texts tried on an item",
                    y_label="attack success rate",
                    unit="percent",
                    name=victim,
                )
                here.trajectory(line, [(n, 100 * value) for n, value in by_tries(labels)])
