"""Templates and questions of judged evaluations, read from pinned files.

They are other people's texts: fetched, never committed. A Python source is parsed and its literals
read, never run. Sources: HarmBench eval_utils.py and harmbench_behaviors_text_all.csv, StrongREJECT
strongreject_evaluator_prompt.txt and strongreject_dataset.csv, FastChat llm_judge/data.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.results.plain import read_json_lines

WITH_REFERENCE = frozenset({"math", "reasoning", "coding"})
"""Categories whose answers MT-Bench compares with a reference (FastChat llm_judge/common.py)."""


@dataclass(frozen=True)
class Template:
    """What a judge is asked.

    Attributes:
        text: With the names of its fields in braces.
        system: Of the judge's system turn; none where empty.
    """

    text: str
    system: str = ""

    def filled(self, **fields: str) -> str:
        """The text with each field in place of its name, in one pass: what a field holds is text.

        Raises:
            ValueError: The template has no such field.
        """
        for name in fields:
            if f"{{{name}}}" not in self.text:
                raise ValueError(f"the judge's template has no field {{{name}}}")
        pattern = "|".join(re.escape(f"{{{name}}}") for name in fields)
        return re.sub(pattern, lambda match: fields[match.group()[1:-1]], self.text)


@dataclass(frozen=True)
class Request:
    """What a model is asked before a judge reads its answers.

    Attributes:
        id: Stable.
        turns: User turns; the model answers each.
        category: Of the set.
        references: Answers to compare with, a turn each; empty where there are none.
    """

    id: str
    turns: tuple[str, ...]
    category: str = ""
    references: tuple[str, ...] = ()


def harmbench_template(path: Path) -> Template:
    """``LLAMA2_CLS_PROMPT["prompt"]``, the classifier's whole prompt for requests without context.

    Raises:
        ValueError: The source has no such literal.
    """
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "LLAMA2_CLS_PROMPT"
            for target in node.targets
        ):
            prompts: Any = ast.literal_eval(node.value)
            if isinstance(prompts, dict) and isinstance(prompts.get("prompt"), str):
                return Template(prompts["prompt"])
    raise ValueError(f"{path.name} has no literal LLAMA2_CLS_PROMPT with a prompt")


def strongreject_template(path: Path) -> Template:
    """The rubric, a text file."""
    return Template(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class _JudgePrompt:
    name: str
    system_prompt: str
    prompt_template: str


def mt_bench_templates(path: Path) -> dict[str, Template]:
    """By name: ``single-v1``, ``single-math-v1`` and the two for a second turn, and others."""
    rows = read_json_lines(path, _JudgePrompt)
    return {row.name: Template(row.prompt_template, row.system_prompt) for row in rows}


def harmbench_requests(path: Path) -> list[Request]:
    """The 200 behaviours that are direct requests (``FunctionalCategory`` ``standard``).

    Raises:
        ValueError: Columns that are not there, or no such row.
    """
    return _csv(path, "BehaviorID", "Behavior", "SemanticCategory", only="standard")


def strongreject_requests(path: Path) -> list[Request]:
    """The forbidden prompts (313), by their number in the file.

    Raises:
        ValueError: As above.
    """
    return _csv(path, "", "forbidden_prompt", "category")


def _csv(path: Path, id: str, text: str, category: str, *, only: str = "") -> list[Request]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        requests = [
            Request(row[id] if id else f"{number:03d}", (row[text],), row[category])
            for number, row in enumerate(rows)
            if not only or row["FunctionalCategory"] == only
        ]
    except KeyError as error:
        raise ValueError(f"{path.name} has no column {error}") from None
    if not requests:
        raise ValueError(f"{path.name} has no requests")
    return requests


@dataclass(frozen=True)
class _Question:
    question_id: int
    category: str
    turns: tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    turns: tuple[str, ...]


@dataclass(frozen=True)
class _Reference:
    question_id: int
    choices: tuple[_Choice, ...]


def mt_bench_requests(questions: Path, references: Path) -> list[Request]:
    """The 80 questions of two turns, those of three categories with reference answers.

    Raises:
        ValueError: A question of such a category without a reference.
    """
    known: Mapping[int, tuple[str, ...]] = {
        row.question_id: row.choices[0].turns for row in read_json_lines(references, _Reference)
    }
    made = []
    for row in read_json_lines(questions, _Question):
        wanted = row.category in WITH_REFERENCE
        if wanted and row.question_id not in known:
            raise ValueError(f"question {row.question_id} has no reference answer")
        answers = known[row.question_id] if wanted else ()
        made.append(Request(str(row.question_id), row.turns, row.category, answers))
    return made
