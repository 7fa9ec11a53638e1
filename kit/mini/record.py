"""The build record: every seed that was tried, with its numbers, and the hashes of what ships."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kit.mini import entry
from kit.mini.paths import HASHES_FILE, RECORD_FILE
from kit.mini.pretrain import NEWER, SOURCE

Json = dict[str, Any]

WANTED = 10
"""Pairs of a source and its newer version that are shipped."""


def recipe() -> Json:
    """Everything that decides the numbers, as plain JSON values."""
    stated = {
        "entry_rule": {
            "questions": entry.SIZE,
            "least_accuracy": entry.LEAST_ACCURACY,
            "least_attack_success": entry.LEAST_ATTACK_SUCCESS,
            "attacks": entry.RULE_ATTACKS,
        },
        "source": asdict(SOURCE),
        "newer": asdict(NEWER),
    }
    plain: Json = json.loads(json.dumps(stated))
    return plain


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


def read_record(root: Path) -> Json:
    """The record of a build folder; one without seeds if there is none yet.

    Raises:
        ValueError: The record belongs to another recipe.
    """
    path = root / RECORD_FILE.name
    if not path.is_file():
        return {"wanted": WANTED, "recipe": recipe(), "software": software(), "seeds": []}
    record: Json = json.loads(path.read_text(encoding="utf-8"))
    if record["recipe"] != recipe():
        raise ValueError(f"{path} was built by another recipe; build into an empty folder")
    return record


def write_record(root: Path, record: Json) -> None:
    """Write the record and the hashes of all model files below ``root``."""
    _write(root / RECORD_FILE.name, record)
    _write(root / HASHES_FILE.name, file_hashes(root))


def file_hashes(root: Path) -> Json:
    """sha256 and size in bytes of each file of the model folders, by relative path."""
    return {
        path.relative_to(root).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(root.glob("*/*"))
        if path.is_file()
    }


def judge(seeds: list[Json], wanted: int) -> list[Json]:
    """The tried seeds in order, each with its ``status``.

    ``admitted`` are the first ``wanted`` seeds whose source and newer version both passed;
    ``surplus`` passed after enough were found (two seeds train at a time); the rest is
    ``rejected``.
    """
    judged, admitted = [], 0
    for row in sorted(seeds, key=lambda row: int(row["seed"])):
        passed = bool(row["source"]["admitted"] and row["newer"] and row["newer"]["admitted"])
        status = "rejected" if not passed else "admitted" if admitted < wanted else "surplus"
        admitted += status == "admitted"
        judged.append({**row, "status": status})
    return judged


def _write(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
