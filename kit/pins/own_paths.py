"""Paths that a user brings instead of a download: ``kit fetch EXP --pin ID=PATH``."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from kit.errors import UsageError
from kit.pins.hashing import write_json


def variable(id: str) -> str:
    """The environment variable that gives a pin's path: ``KIT_PIN_LLAMA_3_8B_INSTRUCT``."""
    return "KIT_PIN_" + re.sub(r"[^A-Z0-9]", "_", id.upper())


class OwnPaths:
    """Pin id -> the user's path, from the environment or remembered under the kit's home.

    Args:
        home: The kit's home.
    """

    def __init__(self, home: Path) -> None:
        self.record = home / "pins" / "own-paths.json"

    def get(self, id: str) -> Path | None:
        """The user's path for a pin; the environment wins."""
        named = os.environ.get(variable(id), "").strip()
        if named:
            return Path(named).expanduser().absolute()
        path = self._read().get(id)
        return Path(path) if path is not None else None

    def put(self, id: str, path: Path) -> Path | None:
        """Remember a path; returns the one that was remembered before.

        Raises:
            UsageError: There is nothing at the path.
        """
        path = path.expanduser().absolute()
        if not path.exists():
            raise UsageError(f"--pin {id}={path}: there is nothing at this path")
        known = self._read()
        write_json(self.record, {**known, id: str(path)})
        return Path(known[id]) if id in known else None

    def back(self, id: str, before: Path | None) -> None:
        """Undo :meth:`put`."""
        if before is None:
            self.drop(id)
        else:
            write_json(self.record, {**self._read(), id: str(before)})

    def drop(self, id: str) -> None:
        """Forget a path."""
        known = self._read()
        if known.pop(id, None) is not None:
            write_json(self.record, known)

    def _read(self) -> dict[str, str]:
        try:
            loaded = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(k): str(v) for k, v in loaded.items()} if isinstance(loaded, dict) else {}


def parse_assignment(text: str) -> tuple[str, Path]:
    """``ID=PATH`` of ``--pin``.

    Raises:
        UsageError: Not of that form.
    """
    id, equals, path = text.partition("=")
    if not equals or not id.strip() or not path.strip():
        raise UsageError(f"--pin {text!r} is not ID=PATH", next_step="--pin some-model=/data/model")
    return id.strip(), Path(path.strip())
