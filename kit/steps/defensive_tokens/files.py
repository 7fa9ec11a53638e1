"""Files that several steps write, and their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SETS = "prefixes.safetensors"


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; refuses numbers that are not finite (``ValueError``)."""
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path.name} would contain a number that is not finite") from error
    path.write_text(text + "\n", encoding="utf-8")
