"""The build record of a world: every seed that was tried, with its numbers."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.results.plain import read_json

Json = dict[str, Any]


def plain(value: Any) -> Json:
    """A mapping as JSON reads it back: tuples are lists, keys are text."""
    read: Json = json.loads(json.dumps(value))
    return read


def software() -> Json:
    """Versions that may change a number without anyone deciding so."""
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
    }


def read_record(path: Path, recipe: Json, wanted: int) -> Json:
    """The record in a file; one without seeds if there is no file yet.

    Args:
        path: The file.
        recipe: Everything that decides the numbers, as plain JSON values.
        wanted: Seeds that are to be admitted, for a new record.

    Raises:
        ValueError: The record belongs to another recipe.
    """
    if not path.is_file():
        return {"wanted": wanted, "recipe": recipe, "software": software(), "seeds": []}
    record = read_json(path, Json)
    if record.get("recipe") != recipe:
        raise ValueError(f"{path} was built by another recipe; build into an empty folder")
    return record


def write_json(path: Path, value: Json) -> None:
    """Write plain values, one level of indentation a nesting."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def judge(seeds: list[Json], wanted: int, passed: Callable[[Json], bool]) -> list[Json]:
    """The tried seeds in order, each with its ``status``.

    ``admitted`` are the first ``wanted`` seeds that passed; ``surplus`` passed after enough were
    there (several seeds train at a time); the rest is ``rejected``.

    Args:
        seeds: A row for every tried seed, with its ``seed``.
        wanted: How many are admitted.
        passed: Whether a row passes the world's entry rule.
    """
    judged, admitted = [], 0
    for row in sorted(seeds, key=lambda row: int(row["seed"])):
        status = "rejected"
        if passed(row):
            status = "admitted" if admitted < wanted else "surplus"
        admitted += status == "admitted"
        judged.append({**row, "status": status})
    return judged
