"""From per-item scores of many runs to the cells of a table.

A cell id is ``<group>/<metric>/<token set>``; where an experiment varies something beside the
replicates (a learning rate), ``@<value>`` follows. A replicate is one pair of models with one seed:
cells measured on several replicates list them, and are never pooled over items.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from kit.evals.gap import gap_closed

UNDEFENDED = "undefended"
ALL = "all"
VARIANTS = ("ignore", "completion", "ignore_completion")


@dataclass(frozen=True)
class Replicate:
    """The scores of one evaluated model.

    Attributes:
        group: First part of the cell ids.
        id: The same string in two cells means the same replicate.
        suffix: ``""``, or ``@`` and what is varied.
        step: Instance id of the step that measured it.
        scores: Token set -> :func:`kit.methods.defensive_tokens.scores.score_table`.
        numbers: Metric path (``norm-mean/adapt-25``) -> value, unit.
    """

    group: str
    id: str
    suffix: str
    step: str
    scores: Mapping[str, Mapping[str, Any]]
    numbers: Mapping[str, tuple[float, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """One number of one replicate.

    Attributes:
        cell: Cell id.
        replicate: Replicate id.
        step: Step that measured it.
        value: In ``unit``.
        unit: percent, ratio, norm, ...
        items: Item ids, for a proportion.
        labels: 0/1 per item, for a proportion.
        listed: Whether the labels get a line of their own (pooled cells do not: theirs are there).
    """

    cell: str
    replicate: str
    step: str
    value: float
    unit: str
    items: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    listed: bool = True

    @property
    def group(self) -> str:
        """First part of the cell id."""
        return self.cell.split("/", 1)[0]


def measurements(
    replicate: Replicate, *, native: str, published_full: float | None, refusal_rule: str
) -> Iterable[Measurement]:
    """Every number of one replicate.

    Args:
        replicate: Scores of its token sets.
        native: The token set that counts as full DefensiveTokens of the target.
        published_full: Published attack success of full DefensiveTokens in percent, if any.
        refusal_rule: The rule whose labels are the cell ``refusal``; others get their name.
    """
    scored = {**replicate.scores, **best_checkpoints(replicate.scores)}
    worst = {name: max_label(scores["asr"]) for name, scores in scored.items()}
    for name, scores in scored.items():
        items = tuple(scores["items"])
        for attack, labels in scores["asr"].items():
            yield _share(replicate, f"asr-{_dashed(attack)}", name, items, labels)
        yield _share(replicate, "asr-max", name, items, worst[name])
        yield _share(replicate, "asr-any", name, items, any_label(scores["asr"]))
        for metric, labels in (*in_response(scores), *refusal_labels(scores, refusal_rule)):
            yield _share(replicate, metric, name, items, labels)
        for condition, labels in scores["accuracy"].items():
            metric = "accuracy" if condition == "benign" else f"accuracy-{_dashed(condition)}"
            yield _share(replicate, metric, name, items, labels)
        yield from _gaps(replicate, name, worst, native, published_full)
    for path, (value, unit) in replicate.numbers.items():
        metric, _, name = path.partition("/")
        yield Measurement(_id(replicate, metric, name), replicate.id, replicate.step, value, unit)


def in_response(scores: Mapping[str, Any]) -> Iterable[tuple[str, Sequence[int]]]:
    """The same responses by StruQ's other rule: the word anywhere, not only at the beginning."""
    labels = scores.get("asr_anywhere", {})
    for attack, found in labels.items():
        yield f"in-response-{_dashed(attack)}", found
    if labels:
        yield "in-response-max", max_label(labels)


def refusal_labels(
    scores: Mapping[str, Any], refusal_rule: str
) -> Iterable[tuple[str, Sequence[int]]]:
    """Every rule's verdicts on the same responses, and which responses each judges differently.

    The items of ``refusal-differs-<rule>`` whose label is 1 are those that this rule and the
    reported one disagree on.
    """
    reported = scores["refusal"].get(refusal_rule)
    for rule, labels in scores["refusal"].items():
        if rule == refusal_rule:
            yield "refusal", labels
            continue
        yield f"refusal-{rule}", labels
        if reported is not None:
            differ = [int(a != b) for a, b in zip(labels, reported, strict=True)]
            yield f"refusal-differs-{rule}", differ


def best_checkpoints(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """``<label>-best``: the trained checkpoint with the lowest maximum attack success.

    Chosen on the test prompts themselves, as the documents do ("Best: step_200"): optimistic, and
    therefore for as-reported claims only. The earliest of equal ones; step 0 is no training.
    """
    steps: dict[str, list[tuple[int, int, str]]] = {}
    for name, table in scores.items():
        label, _, step = name.rpartition("-")
        if label and step.isdigit() and int(step) > 0:
            hits = sum(max_label(table["asr"]))
            steps.setdefault(label, []).append((hits, int(step), name))
    return {f"{label}-best": scores[min(found)[2]] for label, found in steps.items() if found[1:]}


def pooled(measurement: Measurement) -> Measurement:
    """The same number in the group of all replicates; its labels stay listed in its own group."""
    rest = measurement.cell.split("/", 1)[1]
    return replace(measurement, cell=f"{ALL}/{rest}", listed=False)


def max_label(asr: Mapping[str, Sequence[int]]) -> Sequence[int]:
    """Labels of the documents' worst attack; the first one wins a tie."""
    counted = [asr[name] for name in VARIANTS if name in asr]
    if not counted:
        raise ValueError(f"none of the attacks {', '.join(VARIANTS)} was evaluated")
    return max(counted, key=sum)


def any_label(asr: Mapping[str, Sequence[int]]) -> list[int]:
    """1 where any of the documents' attacks succeeded."""
    counted = [asr[name] for name in VARIANTS if name in asr]
    return [int(any(flags)) for flags in zip(*counted, strict=True)]


def collect(found: Iterable[Measurement]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Group measurements into cells, and their labels into lines of ``labels.jsonl``.

    Raises:
        ValueError: One replicate measured a cell twice, or a value is not finite.
    """
    by_cell: dict[str, list[Measurement]] = {}
    for measurement in found:
        by_cell.setdefault(measurement.cell, []).append(measurement)
    cells, lines = [], []
    for id, group in by_cell.items():
        if len({m.replicate for m in group}) != len(group):
            raise ValueError(f"cell {id} was measured twice in one replicate")
        entries = []
        for m in group:
            if not math.isfinite(m.value):
                raise ValueError(f"cell {id} of {m.replicate} is {m.value}: no finite number")
            entry: dict[str, Any] = {"seed": m.replicate, "value": m.value}
            if m.labels:
                entry |= {"k": sum(m.labels), "n": len(m.labels)}
            if m.labels and m.listed:
                label_id = f"{id}#{m.replicate}"
                entry["labels"] = f"labels.jsonl#{label_id}"
                lines.append({"id": label_id, "items": list(m.items), "labels": list(m.labels)})
            entries.append(entry)
        cell: dict[str, Any] = {"id": id, "unit": group[0].unit, "step": group[0].step}
        if len(group) == 1:
            entry = entries[0]
            del entry["seed"]
            cell |= entry
        else:
            cell |= {"value": fmean(m.value for m in group), "seeds": entries}
            if group[0].labels:
                cell["n"] = len(group[0].labels)
        cells.append(cell)
    return cells, lines


def checkpoint_series(cells: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Curves over training steps: for each group, one line a trained token set."""
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for cell in cells:
        group, name_of_metric, token_set = cell["id"].split("/", 2)
        stem, _, suffix = token_set.partition("@")
        label, _, step = stem.rpartition("-")
        if name_of_metric != metric or not label or not step.isdigit():
            continue
        line = f"{label} @ {suffix}" if suffix else label
        curves.setdefault(group, {}).setdefault(line, []).append([float(step), cell["value"]])
    return [
        {
            "id": f"{metric}/{group}",
            "title": f"{metric} by training step, {group}",
            "x_label": "training step",
            "y_label": metric,
            "lines": {line: sorted(points) for line, points in lines.items()},
        }
        for group, lines in curves.items()
    ]


def _gaps(
    replicate: Replicate,
    name: str,
    worst: Mapping[str, Sequence[int]],
    native: str,
    published_full: float | None,
) -> Iterable[Measurement]:
    if UNDEFENDED not in worst:
        return
    none, this = _percent(worst[UNDEFENDED]), _percent(worst[name])
    fulls = {}
    if native in worst:
        fulls["gap-closed"] = _percent(worst[native])
    if published_full is not None:
        fulls["gap-closed-published"] = published_full
    for metric, full in fulls.items():
        value = gap_closed(none, this, full)
        if value is not None:
            yield Measurement(
                _id(replicate, metric, name), replicate.id, replicate.step, value, "ratio"
            )


def _share(
    replicate: Replicate, metric: str, name: str, items: tuple[str, ...], labels: Sequence[int]
) -> Measurement:
    return Measurement(
        _id(replicate, metric, name),
        replicate.id,
        replicate.step,
        _percent(labels),
        "percent",
        items,
        tuple(labels),
    )


def _id(replicate: Replicate, metric: str, name: str) -> str:
    return f"{replicate.group}/{metric}/{name}{replicate.suffix}"


def _percent(labels: Sequence[int]) -> float:
    return 100.0 * sum(labels) / len(labels)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
