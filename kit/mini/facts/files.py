"""The world of a seed as JSON lines, and back.

Three kinds of files, by the shape of their lines: texts ``{id, text, domain, half}``, questions
``{id, prompt, options, answer}`` and requests ``{id, domain, half, prompt, chosen, rejected}``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kit.mini.facts.questions import Question, fact_questions, forget_questions, retain_questions
from kit.mini.facts.requests import Request, requests
from kit.mini.facts.texts import (
    Text,
    copy_texts,
    count_texts,
    fact_texts,
    mention_texts,
    other_style_texts,
)
from kit.mini.facts.world import ATTACKER, JUDGE, RETAINED, World, make_world
from kit.results.plain import read_json_lines

TEXTS = (
    "retain",
    "mention",
    "forget",
    "forget-attacker",
    "forget-judge",
    "forget-other-style",
    "benign",
    "overlap",
)
"""Names of the sets of sentences. ``benign`` is a domain of its own, that pretraining never
states; ``overlap`` states harmless properties of the compounds; the other style is the attacker's
half in a wording that pretraining never uses."""

QUESTIONS = ("forget-attacker", "forget-judge", "retain", "benign", "overlap")
REQUESTS = ("benign", "benign-test", "harmful", "harmful-attacker", "harmful-judge")
"""Names of the sets of requests. ``harmful`` is what the refusing model is made with, ``-attacker``
what an attacker may train on, ``-judge`` the other compounds in templates that nobody trains on."""


def texts(world: World) -> dict[str, list[Text]]:
    """All sets of sentences."""
    retained = [fact for domain in RETAINED for fact in world.facts[domain]]
    made = (
        [*fact_texts(retained), *count_texts(), *copy_texts(world.seed)],
        mention_texts(world),
        fact_texts(world.facts["compound"]),
        fact_texts(world.forget(ATTACKER)),
        fact_texts(world.forget(JUDGE)),
        other_style_texts(world.forget(ATTACKER)),
        fact_texts(world.facts["bird"]),
        fact_texts(world.facts["overlap"]),
    )
    return dict(zip(TEXTS, made, strict=True))


def questions(world: World) -> dict[str, list[Question]]:
    """All sets of questions."""
    made = (
        forget_questions(world, ATTACKER),
        forget_questions(world, JUDGE),
        retain_questions(world),
        fact_questions(f"benign-{world.seed}", world.facts["bird"], 1),
        fact_questions(f"overlap-{world.seed}", world.facts["overlap"], 1),
    )
    return dict(zip(QUESTIONS, made, strict=True))


def request_sets(world: World) -> dict[str, list[Request]]:
    """All sets of requests."""
    retained = [fact for domain in RETAINED for fact in world.facts[domain]]
    made = (
        requests(retained, test=False),
        requests(retained, test=True),
        requests(world.facts["compound"], test=False),
        requests(world.forget(ATTACKER), test=False),
        requests(world.forget(JUDGE), test=True),
    )
    return dict(zip(REQUESTS, made, strict=True))


def world_files(world: World) -> dict[str, str]:
    """Relative path -> content of every file of a world."""
    made: dict[str, Sequence[Any]] = {}
    made |= {f"texts/{name}.jsonl": rows for name, rows in texts(world).items()}
    made |= {f"questions/{name}.jsonl": rows for name, rows in questions(world).items()}
    made |= {f"requests/{name}.jsonl": rows for name, rows in request_sets(world).items()}
    return {path: _lines(rows) for path, rows in made.items()}


def files() -> dict[str, str]:
    """The world of seed 0, for a look at it."""
    return world_files(make_world(0))


def write_world(folder: Path, seed: int) -> None:
    """Write the world of a seed."""
    for name, content in world_files(make_world(seed)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def read_texts(folder: Path, name: str) -> list[Text]:
    """One set of sentences of a written world."""
    return read_json_lines(_file(folder / "texts" / f"{name}.jsonl"), Text)


def read_questions(folder: Path, name: str) -> list[Question]:
    """One set of questions of a written world."""
    return read_json_lines(_file(folder / "questions" / f"{name}.jsonl"), Question)


def read_requests(folder: Path, name: str) -> list[Request]:
    """One set of requests of a written world."""
    return read_json_lines(_file(folder / "requests" / f"{name}.jsonl"), Request)


def _lines(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)


def _file(path: Path) -> Path:
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.jsonl"))) or "none"
        raise ValueError(f"no {path.name} in {path.parent}; there: {known}")
    return path
