"""Per-item scores and responses of one evaluated token set, as plain data."""

from __future__ import annotations

from typing import Any

from kit.methods.defensive_tokens.evaluate import Evaluation


def score_table(evaluation: Evaluation) -> dict[str, Any]:
    """Everything the tables need, without the responses.

    Returns:
        ``items`` (sample ids), ``asr`` and ``asr_anywhere`` (attack -> 0/1 labels), ``refusal``
        (rule -> labels), ``accuracy`` (condition -> labels, where references are right),
        ``lengths`` (condition -> mean tokens, empty and truncated counts).
    """
    conditions = [*evaluation.attacks.values(), evaluation.benign]
    return {
        "items": [response.sample_id for response in evaluation.benign.responses],
        "asr": {name: _bits(c.injected) for name, c in evaluation.attacks.items()},
        "asr_anywhere": {
            name: _bits(c.injected_anywhere) for name, c in evaluation.attacks.items()
        },
        "refusal": {
            rule: [int(verdict.refused) for verdict in verdicts]
            for rule, verdicts in evaluation.benign.refused.items()
        },
        "accuracy": {c.name: _bits(c.correct) for c in conditions if c.correct},
        "lengths": {
            c.name: {
                "mean_tokens": c.stats.mean_tokens,
                "empty": c.stats.empty.k,
                "truncated": c.stats.truncated.k,
                "distinct": c.stats.distinct,
            }
            for c in conditions
        },
    }


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


def _bits(labels: tuple[bool, ...]) -> list[int]:
    return [int(label) for label in labels]
