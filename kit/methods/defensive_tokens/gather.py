"""All stages' outputs of an experiment, read back and turned into one table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kit.methods.defensive_tokens.checkpoint_choice import chosen_step, with_chosen
from kit.methods.defensive_tokens.result_cells import (
    Measurement,
    Replicate,
    checkpoint_series,
    collect,
    measurements,
    pooled,
)
from kit.methods.defensive_tokens.spectrum import spectrum_series
from kit.methods.defensive_tokens.stat_cells import over_all, statistics
from kit.methods.defensive_tokens.token_norms import l1_norms
from kit.methods.defensive_tokens.utility import utility_cells

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StageFolder:
    """One finished stage.

    Attributes:
        instance: Its instance id.
        path: Its outputs.
        axes: Axis name -> value; the first axis is the replicate (a pair or a model, with a
            ``group``), further ones are what the experiment varies.
    """

    instance: str
    path: Path
    axes: Mapping[str, Any]


@dataclass(frozen=True)
class Utility:
    """See :func:`kit.methods.defensive_tokens.utility.utility_cells`."""

    sets: Sequence[str]
    not_run: str
    given: Mapping[str, float]


@dataclass(frozen=True)
class Tables:
    """Cells and series as plain data, and the lines of ``labels.jsonl``."""

    cells: list[dict[str, Any]]
    series: list[dict[str, Any]]
    labels: list[dict[str, Any]]


def training_facts(
    label: str,
    losses: Sequence[float],
    checkpoints: Mapping[int, Tensor],
    heldout: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """What a training leaves besides its vectors: losses, and norms at each checkpoint."""
    # In float64: the squares of large float32 values are infinite in float32.
    norms = {step: prefix.double().norm(dim=1).tolist() for step, prefix in checkpoints.items()}
    last = checkpoints[max(checkpoints)]
    return {
        "label": label,
        "losses": list(losses),
        "norms": norms,
        "trained_parameters": int(last.numel()),
        **({"heldout_losses": dict(heldout)} if heldout else {}),
    }


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
) -> Tables:
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
    """
    varied = _varied([*evaluations, *alignments, *transfers, *trainings])
    chosen = _chosen(trainings, varied)
    found: list[Measurement] = []
    stats: list[Measurement] = []
    for stage in evaluations:
        replicate = _replicate(stage, varied, scores=_read(stage, "scores.json"))
        rows = with_chosen(replicate.scores, chosen.get(_place(replicate), {}))
        found += measurements(
            replace(replicate, scores=rows),
            native=native,
            published_full=published_full,
            refusal_rule=refusal_rule,
        )
        stats += statistics(replicate, refusal_rule)
    numbers = [(stage, _alignment_numbers(stage)) for stage in alignments]
    numbers += [(stage, _geometry_numbers(stage)) for stage in transfers]
    numbers += [(stage, _training_numbers(stage, loss_window, loss_divisor)) for stage in trainings]
    for stage, table in numbers:
        replicate = _replicate(stage, varied, numbers=table)
        found += measurements(replicate, native=native, published_full=None, refusal_rule="")
    if len({m.group for m in found}) > 1:
        found += [pooled(m) for m in found]
        stats += [over_all(m) for m in stats]
    cells, labels = collect([*found, *stats])
    if utility is not None:
        groups = dict.fromkeys(str(_split(stage)[0]["group"]) for stage in evaluations)
        cells += utility_cells(groups, utility.sets, utility.given, utility.not_run)
    series = checkpoint_series(cells, "asr-max") + checkpoint_series(cells, "gap-closed")
    series += checkpoint_series(cells, "loss-heldout")
    series += _loss_series(trainings, varied) + spectrum_series(
        (str(_split(stage)[0]["group"]), _line(stage, varied), stage.path) for stage in alignments
    )
    return Tables(cells, series, labels)


def _chosen(
    trainings: Sequence[StageFolder], varied: set[str]
) -> dict[tuple[str, str, str], dict[str, int]]:
    """Label -> chosen step, for every replicate whose trainings kept items back."""
    found: dict[tuple[str, str, str], dict[str, int]] = {}
    for stage in trainings:
        facts = _read(stage, "training.json")
        if "heldout_losses" in facts:
            place = _place(_replicate(stage, varied))
            found.setdefault(place, {})[facts["label"]] = chosen_step(facts["heldout_losses"])
    return found


def _place(replicate: Replicate) -> tuple[str, str, str]:
    return replicate.group, replicate.id, replicate.suffix


def _read(stage: StageFolder, name: str) -> Any:
    return json.loads((stage.path / name).read_text(encoding="utf-8"))


def _varied(stages: Iterable[StageFolder]) -> set[str]:
    """Axes beyond the first that take more than one value: only those show in cell ids."""
    values: dict[str, set[str]] = {}
    for stage in stages:
        for axis, value in list(stage.axes.items())[1:]:
            values.setdefault(axis, set()).add(_name(value))
    return {axis for axis, names in values.items() if len(names) > 1}


def _replicate(
    stage: StageFolder,
    varied: set[str],
    *,
    scores: Mapping[str, Any] | None = None,
    numbers: Mapping[str, tuple[float, str]] | None = None,
) -> Replicate:
    record, others = _split(stage)
    seed = f"/{record['seed']}" if "seed" in record else ""
    return Replicate(
        group=str(record["group"]),
        id=f"{record['id']}{seed}",
        suffix=_suffix(others, varied),
        step=stage.instance,
        scores=scores or {},
        numbers=numbers or {},
    )


def _split(stage: StageFolder) -> tuple[Mapping[str, Any], list[tuple[str, Any]]]:
    """The replicate, and the axes that are varied beside it."""
    values = list(stage.axes.values())
    if not values or not isinstance(values[0], Mapping) or not {"id", "group"} <= values[0].keys():
        raise ValueError(
            f"{stage.instance}: its first axis must be a record with an id and a group "
            f"(a pair or a model); its axes: {', '.join(stage.axes) or 'none'}"
        )
    return values[0], list(stage.axes.items())[1:]


def _line(stage: StageFolder, varied: set[str]) -> str:
    """What a curve of one replicate is called."""
    record, others = _split(stage)
    return str(record["id"]) + _suffix(others, varied).replace("@", " @ ")


def _suffix(others: Sequence[tuple[str, Any]], varied: set[str]) -> str:
    return "".join(f"@{_name(value)}" for axis, value in others if axis in varied)


def _name(value: Any) -> str:
    return str(value["id"] if isinstance(value, dict) else value)


def _alignment_numbers(stage: StageFolder) -> dict[str, tuple[float, str]]:
    facts = _read(stage, "alignment.json")
    return {
        "alignment/residual": (facts["residual"], "number"),
        "alignment/relative-residual": (100 * facts["relative_residual"], "number"),
        "alignment/distance-from-identity": (facts["distance_from_identity"], "number"),
        "alignment/mean-trace": (facts["mean_trace"], "number"),
        "alignment/orthogonality-error": (facts["orthogonality_error"], "number"),
        "alignment/largest-singular-value": (facts["singular_values"][0], "number"),
        "alignment/smallest-singular-value": (facts["smallest_singular_value"], "number"),
        "alignment/sum-of-singular-values": (facts["sum_of_singular_values"], "number"),
    }


def _geometry_numbers(stage: StageFolder) -> dict[str, tuple[float, str]]:
    table = _read(stage, "geometry.json")
    numbers = {}
    for name, facts in table.items():
        for metric in ("norm_mean", "norm_min", "norm_max", "norm_l1_mean", "norm_l1_max"):
            numbers[f"{metric.replace('_', '-')}/{name}"] = (facts[metric], "norm")
        numbers[f"cosine-native/{name}"] = (facts["cosine_native"], "number")
        numbers[f"cosine-source/{name}"] = (facts["cosine_source"], "number")
    return numbers


def _training_numbers(
    stage: StageFolder, window: int, divisor: float | None
) -> dict[str, tuple[float, str]]:
    facts = _read(stage, "training.json")
    label = facts["label"]
    losses = {"first": fmean(facts["losses"][:window]), "last": fmean(facts["losses"][-window:])}
    numbers = {f"loss-{which}/{label}": (loss, "loss") for which, loss in losses.items()}
    if divisor is not None:
        for which, loss in losses.items():
            numbers[f"loss-{which}-printed/{label}"] = (loss / divisor, "loss")
    if "heldout_losses" in facts:
        for step, loss in facts["heldout_losses"].items():
            numbers[f"loss-heldout/{label}-{step}"] = (loss, "loss")
        numbers[f"chosen-step/{label}"] = (float(chosen_step(facts["heldout_losses"])), "count")
    numbers[f"trained-parameters/{label}"] = (float(facts["trained_parameters"]), "count")
    for step, norms in facts["norms"].items():
        numbers[f"norm-min/{label}-{step}"] = (min(norms), "norm")
        numbers[f"norm-max/{label}-{step}"] = (max(norms), "norm")
        numbers[f"norm-mean/{label}-{step}"] = (fmean(norms), "norm")
    for name, (mean, largest) in l1_norms(stage.path / "prefixes.safetensors").items():
        numbers[f"norm-l1-mean/{name}"] = (mean, "norm")
        numbers[f"norm-l1-max/{name}"] = (largest, "norm")
    return numbers


def _loss_series(trainings: Sequence[StageFolder], varied: set[str]) -> list[dict[str, Any]]:
    """Mean loss over the replicates of each group, step by step."""
    groups: dict[str, dict[str, list[list[float]]]] = {}
    for stage in trainings:
        facts = _read(stage, "training.json")
        record, others = _split(stage)
        line = facts["label"] + _suffix(others, varied).replace("@", " @ ")
        groups.setdefault(str(record["group"]), {}).setdefault(line, []).append(facts["losses"])
    return [
        {
            "id": f"loss/{group}",
            "title": f"training loss, {group}",
            "x_label": "training step",
            "y_label": "loss",
            "lines": {
                line: [[float(i), fmean(step)] for i, step in enumerate(zip(*runs, strict=True), 1)]
                for line, runs in lines.items()
            },
        }
        for group, lines in groups.items()
    ]
