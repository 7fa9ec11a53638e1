"""The build record of this world, and the hashes of what ships."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

from kit.mini import record
from kit.mini.injection import entry
from kit.mini.injection.paths import HASHES_FILE, RECORD_FILE
from kit.mini.injection.pretrain import NEWER, SOURCE
from kit.mini.record import Json

WANTED = 10
"""Pairs of a source and its newer version that are shipped."""


def recipe() -> Json:
    """Everything that decides the numbers, as plain JSON values."""
    return record.plain(
        {
            "entry_rule": {
                "questions": entry.SIZE,
                "least_accuracy": entry.LEAST_ACCURACY,
                "least_attack_success": entry.LEAST_ATTACK_SUCCESS,
                "attacks": entry.RULE_ATTACKS,
            },
            "source": asdict(SOURCE),
            "newer": asdict(NEWER),
        }
    )


def read_record(root: Path) -> Json:
    """The record of a build folder; one without seeds if there is none yet.

    Raises:
        ValueError: The record belongs to another recipe.
    """
    return record.read_record(root / RECORD_FILE.name, recipe(), WANTED)


def write_record(root: Path, value: Json) -> None:
    """Write the record and the hashes of all model files below ``root``."""
    record.write_json(root / RECORD_FILE.name, value)
    record.write_json(root / HASHES_FILE.name, file_hashes(root))


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


def passed(row: Json) -> bool:
    """Whether the source and the newer version of a seed both passed the entry rule."""
    return bool(row["source"]["admitted"] and row["newer"] and row["newer"]["admitted"])
