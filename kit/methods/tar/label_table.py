"""What became of responses that were trained with a label, as cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from kit.evals.requests import OTHER, REFUSED, RIGHT, WRONG, verdicts
from kit.methods.tar.label_study import BEFORE, OFF
from kit.results.axes import Axes
from kit.results.builder import Table, TableBuilder

LABEL = "label"
OUTCOMES = (RIGHT, WRONG, REFUSED, LABEL, OTHER)
"""A response that is the label and nothing else is ``label``; the others as
:mod:`kit.evals.requests` judges them."""


@dataclass(frozen=True)
class LabelledTraining:
    """A finished training with a label, as a table step finds it.

    Attributes:
        instance: Its step instance.
        states: Its file.
        axes: Axis -> value.
    """

    instance: str
    states: Path
    axes: Mapping[str, Any]


def tabulate_labels(
    trainings: Sequence[LabelledTraining], roles: Mapping[str, str]
) -> tuple[Table, int]:
    """One table of all trainings.

    Cells, for each state (``before``, ``after``, ``off``): ``<outcome>/<set>-<state>`` and
    ``label-printed/<set>-<state>`` with the label of each request, ``knows/<state>``, questions
    about the same facts, and ``answer-log-prob/<set>-<state>`` (mean, nats).

    Args:
        trainings: All of the experiment.
        roles: Axis -> role.

    Returns:
        The table, and how many responses or log-probabilities with an adapter switched off are not
        exactly those from before.
    """
    builder, axes = TableBuilder(), Axes([training.axes for training in trainings], roles)
    different = 0
    for training in trainings:
        record = json.loads(training.states.read_text(encoding="utf-8"))
        here = builder.at(axes.origin(training.instance, training.axes))
        for state, values in record["states"].items():
            for name, asked in record["requests"].items():
                responses = values["responses"][name]
                judged = outcomes(responses, asked["answers"], record["label"])
                row = f"{name}-{state}"
                for outcome in OUTCOMES:
                    labels = [int(verdict == outcome) for verdict in judged]
                    here.proportion(outcome, row, labels, asked["items"])
                printed = [int(record["label"] in response.split()) for response in responses]
                here.proportion("label-printed", row, printed, asked["items"])
            for name, log_probs in values["log_probs"].items():
                here.number("answer-log-prob", f"{name}-{state}", fmean(log_probs), "number")
            known = [int(right) for right in values["known"]]
            here.proportion("knows", state, known, record["questions"])
        if OFF in record["states"]:
            before, off = record["states"][BEFORE], record["states"][OFF]
            for kind in ("responses", "log_probs"):
                for name, values in before[kind].items():
                    pairs = zip(values, off[kind][name], strict=True)
                    different += sum(a != b for a, b in pairs)
    return builder.build(), different


def outcomes(responses: Sequence[str], answers: Sequence[str], label: str) -> list[str]:
    """One of :data:`OUTCOMES` for each response."""
    judged = verdicts(responses, answers)
    return [
        LABEL if response.split() == [label] else verdict
        for response, verdict in zip(responses, judged, strict=True)
    ]
