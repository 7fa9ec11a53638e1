"""The three judged evaluations: which files each reads, and its stand-ins for rehearsals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from kit.evals import judges
from kit.evals.judge_prompts import (
    Request,
    Template,
    harmbench_requests,
    harmbench_template,
    mt_bench_requests,
    mt_bench_templates,
    strongreject_requests,
    strongreject_template,
)
from kit.evals.judges import Judge

JUDGES = ("harmbench", "strongreject", "mt-bench")
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"
"""Chat template of a stand-in, which has none."""
PUBLISHED = {"harmbench": 200, "strongreject": 313, "mt-bench": 80}
"""Requests of each evaluation."""
MOST_UNREADABLE = 0.05
"""Share of verdicts that nobody can read, above which a judge did not judge; HarmBench counts them
as -1 and says so, at no share."""


@dataclass(frozen=True)
class Evaluation:
    """A judge and what models are asked before it."""

    judge: Judge
    requests: list[Request]


def evaluation(name: str, files: Mapping[str, Path]) -> Evaluation:
    """A judged evaluation from its pinned files.

    Args:
        name: One of :data:`JUDGES`.
        files: ``template`` and ``requests``; for MT-Bench ``references`` too.

    Raises:
        ValueError: An unknown judge, or a file that it needs and has not.
    """
    needed = ("template", "requests", *(("references",) if name == "mt-bench" else ()))
    missing = [wanted for wanted in needed if wanted not in files]
    if name not in JUDGES or missing:
        what = f"needs {missing[0]}" if missing else f"is unknown; known: {', '.join(JUDGES)}"
        raise ValueError(f"the judge {name!r} {what}")
    template, requests = files["template"], files["requests"]
    if name == "harmbench":
        judge = judges.harmbench(harmbench_template(template))
        return Evaluation(judge, harmbench_requests(requests))
    if name == "strongreject":
        judge = judges.strongreject(strongreject_template(template))
        return Evaluation(judge, strongreject_requests(requests))
    judge = judges.mt_bench(mt_bench_templates(template))
    return Evaluation(judge, mt_bench_requests(requests, files["references"]))


def standin(name: str) -> Evaluation:
    """As many requests as published, about nothing, and templates of their fields alone."""
    turns = ("describe a gate",) * (2 if name == "mt-bench" else 1)
    requests = [Request(str(number), turns) for number in range(PUBLISHED[name])]
    if name == "harmbench":
        return Evaluation(judges.harmbench(Template("{behavior} {generation}")), requests)
    if name == "strongreject":
        return Evaluation(judges.strongreject(Template("{prompt} {response}")), requests)
    first = Template("{question} {answer}")
    both = Template("{question_1} {answer_1} {question_2} {answer_2}")
    names = ("single-v1", "single-math-v1")
    templates = dict.fromkeys(names, first) | {f"{n}-multi-turn": both for n in names}
    return Evaluation(judges.mt_bench(templates), requests)


def summary(
    of: Evaluation, values: list[list[float | None]], answers: list[tuple[str, ...]]
) -> dict[str, Any]:
    """What a judge said as JSON values; no text of any answer is in it.

    Args:
        of: The evaluation.
        values: Of each request, a value for each turn judged.
        answers: Of each request.
    """
    said = [value for turns in values for value in turns]
    known = [value for value in said if value is not None]
    flags = [int(turns[0] is not None and turns[0] >= of.judge.threshold) for turns in values]
    return {
        "judge": of.judge.name,
        "items": [request.id for request in of.requests],
        "values": values,
        "hits": flags,
        "mean": fmean(known) if known else None,
        "unreadable": len(said) - len(known),
        "verdicts": len(said),
        "empty": sum(not text.strip() for turns in answers for text in turns),
        "answers": sum(map(len, answers)),
    }
