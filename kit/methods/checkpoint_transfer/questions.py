"""The published question sets, from their data files to prompts that are scored by letter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.evals.formats import Formatted, cloze, lettered, with_shots

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
    made = []
    for question in _read(files, prefix, by_subject=not about):
        subject = about or question.id.split("-")[1].replace("_", " ")
        made.append(lettered(question, about=subject))
    return made


def _read(files: Sequence[Path], prefix: str, *, by_subject: bool = False) -> list[_Raw]:
    """Bare questions; ids carry the subject where there is one."""
    import datasets

    if not files:
        raise ValueError(f"no files with questions for {prefix}")
    kind = "parquet" if files[0].suffix == ".parquet" else "json"
    rows = datasets.load_dataset(kind, data_files=[str(file) for file in files], split="train")
    missing = [
        c for c in (*COLUMNS, *(["subject"] if by_subject else [])) if c not in rows.column_names
    ]
    if missing:
        there = ", ".join(rows.column_names)
        raise ValueError(f"{files[0].name} has no column {missing[0]!r}; there: {there}")
    questions = []
    for at, row in enumerate(rows):
        name = f"{prefix}-{row['subject']}" if by_subject else prefix
        options, answer = tuple(row["choices"]), int(row["answer"])
        questions.append(_Raw(f"{name}-{at:05d}", row["question"], options, answer))
    return questions


def read_cloze(files: Sequence[Path]) -> list[Formatted]:
    """Questions of the cloze test, to be answered with the text of an option.

    Raises:
        ValueError: No files, or a column missing.
    """
    return [cloze(question) for question in _read(files, "cloze")]


def published_sets(
    robust_files: Sequence[Path],
    mmlu_files: Sequence[Path],
    *,
    cloze_files: Sequence[Path] = (),
    shot_files: Sequence[Path] = (),
    shots: int = 0,
) -> dict[str, list[Formatted]]:
    """All sets by name.

    ``wmdp-bio`` and ``wmdp-robust`` are the same questions: the log's two columns are two
    evaluations of one metric (docs/methods/checkpoint-transfer.md). The cloze test and MMLU behind
    examples are there where their files are given.

    Raises:
        ValueError: No files, a column missing, or a subject with fewer than ``shots`` examples.
    """
    robust = read_lettered(robust_files, "robust", about="biology")
    mmlu = read_lettered(mmlu_files, "mmlu")
    sets = {"wmdp-bio": robust, "wmdp-robust": robust, "mmlu": mmlu, "mmlu-stem": stem(mmlu)}
    if cloze_files:
        sets["wmdp-cloze"] = read_cloze(cloze_files)
    if shots:
        sets[f"mmlu-{shots}-shot"] = read_with_shots(mmlu_files, shot_files, shots)
    return sets


def read_with_shots(
    files: Sequence[Path], example_files: Sequence[Path], shots: int
) -> list[Formatted]:
    """MMLU with the first examples of each question's subject before it.

    Raises:
        ValueError: No files, a column missing, or a subject with too few examples.
    """
    examples: dict[str, list[Formatted]] = {}
    for question in _read(example_files, "example", by_subject=True):
        examples.setdefault(question.id.split("-")[1], []).append(lettered(question))
    made = []
    for question in _read(files, "mmlu", by_subject=True):
        subject = question.id.split("-")[1]
        before = examples.get(subject, [])[:shots]
        if len(before) < shots:
            raise ValueError(f"{len(before)} examples of {subject}; {shots} are wanted")
        made.append(with_shots(lettered(question), before, about=subject.replace("_", " ")))
    return made


def stem(questions: Iterable[Formatted]) -> list[Formatted]:
    """Those of the subjects of :data:`STEM`, by their ids."""
    return [question for question in questions if question.id.split("-")[1] in STEM]


def write_questions(folder: Path, name: str, questions: Iterable[Formatted]) -> None:
    """Write ``questions/<name>.jsonl``, in the form of the miniature worlds' questions."""
    target = folder / "questions"
    target.mkdir(exist_ok=True)
    lines = "".join(json.dumps(asdict(question)) + "\n" for question in questions)
    (target / f"{name}.jsonl").write_text(lines, encoding="utf-8")
