"""The published question sets, from their data files to prompts that are scored by letter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.evals.formats import Formatted, lettered

STEM = frozenset(
    {
        "abstract_algebra",
        "anatomy",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    }
)
"""Subjects of ``mmlu_stem`` in lm-evaluation-harness."""
COLUMNS = ("question", "choices", "answer")


@dataclass(frozen=True)
class _Raw:
    id: str
    prompt: str
    options: tuple[str, ...]
    answer: int


def read_lettered(files: Sequence[Path], prefix: str, *, about: str = "") -> list[Formatted]:
    """Questions of Parquet or JSON-lines files, with their options under letters, no examples.

    Args:
        files: Read in this order; with columns ``question``, ``choices``, ``answer`` (an index).
        prefix: Of the ids, which number the questions.
        about: Subject of the opening line; that of the column ``subject`` where empty.

    Raises:
        ValueError: No files, or a column missing.
    """
    import datasets

    if not files:
        raise ValueError(f"no files with questions for {prefix}")
    kind = "parquet" if files[0].suffix == ".parquet" else "json"
    rows = datasets.load_dataset(kind, data_files=[str(file) for file in files], split="train")
    missing = [c for c in (*COLUMNS, *([] if about else ["subject"])) if c not in rows.column_names]
    if missing:
        there = ", ".join(rows.column_names)
        raise ValueError(f"{files[0].name} has no column {missing[0]!r}; there: {there}")
    found = []
    for at, row in enumerate(rows):
        subject = about or str(row["subject"]).replace("_", " ")
        name = prefix if about else f"{prefix}-{row['subject']}"
        raw = _Raw(f"{name}-{at:05d}", row["question"], tuple(row["choices"]), int(row["answer"]))
        found.append(lettered(raw, about=subject))
    return found


def stem(questions: Iterable[Formatted]) -> list[Formatted]:
    """Those of the subjects of :data:`STEM`, by their ids."""
    return [one for one in questions if one.id.split("-")[1] in STEM]


def write_questions(folder: Path, name: str, questions: Iterable[Formatted]) -> None:
    """Write ``questions/<name>.jsonl``, in the form of the miniature worlds' questions."""
    target = folder / "questions"
    target.mkdir(exist_ok=True)
    lines = "".join(json.dumps(asdict(one)) + "\n" for one in questions)
    (target / f"{name}.jsonl").write_text(lines, encoding="utf-8")
