"""Evaluation results as plain cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from kit.evals.gap import gap_closed
from kit.evals.injection import any_over_variants
from kit.methods.defensive_tokens.attacks import PAPER_ATTACKS
from kit.methods.defensive_tokens.evaluate import Evaluation


class Cell(TypedDict):
    """One number of a table.

    ``value`` is a fraction where ``unit`` is "fraction"; ``k`` and ``n`` are set for proportions,
    and ``labels`` then holds the n per-item labels in sample order. An undefined value is ``None``.
    """

    id: str
    value: float | None
    unit: str
    k: int | None
    n: int | None
    labels: list[bool] | None


def proportion_cell(cell_id: str, labels: Sequence[bool]) -> Cell:
    """A share of true labels."""
    flags = [bool(label) for label in labels]
    if not flags:
        raise ValueError(f"cell {cell_id}: no labels")
    k, n = sum(flags), len(flags)
    return Cell(id=cell_id, value=k / n, unit="fraction", k=k, n=n, labels=flags)


def number_cell(cell_id: str, value: float | None, unit: str) -> Cell:
    """A number that is no proportion."""
    return Cell(id=cell_id, value=value, unit=unit, k=None, n=None, labels=None)


def evaluation_cells(
    prefix_id: str, evaluation: Evaluation, *, variants: Sequence[str] = PAPER_ATTACKS
) -> list[Cell]:
    """All cells of one evaluated prefix.

    Ids are ``<prefix_id>.asr.<attack>``, ``.asr.max`` and ``.asr.any`` over the ``variants`` that
    were run, ``.asr-anywhere.<attack>``, ``.refusal.<rule>``, ``.accuracy.<condition>`` and, as
    canaries, ``.truncated.<condition>``, ``.empty.<condition>``, ``.tokens.<condition>``.
    """
    cells = []
    for name, condition in evaluation.attacks.items():
        cells.append(proportion_cell(f"{prefix_id}.asr.{name}", condition.injected))
        cells.append(
            proportion_cell(f"{prefix_id}.asr-anywhere.{name}", condition.injected_anywhere)
        )
    counted = [name for name in variants if name in evaluation.attacks]
    if counted:
        labels = evaluation.labels(counted)
        worst, _ = evaluation.max_asr(counted)
        cells.append(proportion_cell(f"{prefix_id}.asr.max", labels[worst]))
        cells.append(proportion_cell(f"{prefix_id}.asr.any", any_over_variants(labels)))
    for rule, verdicts in evaluation.benign.refused.items():
        flags = [verdict.refused for verdict in verdicts]
        cells.append(proportion_cell(f"{prefix_id}.refusal.{rule}", flags))
    for condition in (*evaluation.attacks.values(), evaluation.benign):
        name = condition.name
        if condition.correct:
            cells.append(proportion_cell(f"{prefix_id}.accuracy.{name}", condition.correct))
        truncated = [response.finish_reason == "length" for response in condition.responses]
        empty = [not response.text.strip() for response in condition.responses]
        cells.append(proportion_cell(f"{prefix_id}.truncated.{name}", truncated))
        cells.append(proportion_cell(f"{prefix_id}.empty.{name}", empty))
        cells.append(
            number_cell(f"{prefix_id}.tokens.{name}", condition.stats.mean_tokens, "tokens")
        )
    return cells


def gap_cell(cell_id: str, none: float, x: float, full: float) -> Cell:
    """Share of the gap that x closes; ``None`` where there is no gap."""
    return number_cell(cell_id, gap_closed(none, x, full), "ratio")


def response_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Every response with its labels, one plain row each, ready for JSON lines."""
    rows = []
    for condition in (*evaluation.attacks.values(), evaluation.benign):
        for i, response in enumerate(condition.responses):
            row: dict[str, Any] = {
                "condition": condition.name,
                "sample_id": response.sample_id,
                "data": response.data,
                "prompt_start": list(response.prompt_start),
                "response": response.text,
                "tokens": response.tokens,
                "finish_reason": response.finish_reason,
            }
            if condition.injected:
                row["injected"] = condition.injected[i]
                row["injected_anywhere"] = condition.injected_anywhere[i]
            for rule, verdicts in condition.refused.items():
                row[f"refused_{rule}"] = verdicts[i].refused
                row[f"pattern_{rule}"] = verdicts[i].pattern
            if condition.correct:
                row["correct"] = condition.correct[i]
            rows.append(row)
    return rows
