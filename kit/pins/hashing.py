"""sha256 of files, with a memory: a file whose size and time are unchanged is not read again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kit.durable import write_json


def sha256_file(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class HashMemory:
    """Hashes of the files below one folder, remembered in a JSON file.

    A forged modification time would be believed; the memory saves minutes on 16 GB of weights and
    ``deep`` checks ignore it.

    Args:
        record: Where to remember; a folder that cannot be written only costs time.
    """

    def __init__(self, record: Path) -> None:
        self.record = record
        try:
            loaded = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            loaded = {}
        known = loaded.items() if isinstance(loaded, dict) else ()
        self._known: dict[str, list[int | str]] = {
            path: entry for path, entry in known if isinstance(entry, list) and len(entry) == 3
        }
        self._changed = False

    def sha256(self, path: Path, *, deep: bool = False) -> str:
        """Hash of a file, read only if it changed since the last time or if ``deep``."""
        status = path.stat()
        entry = self._known.get(str(path))
        if entry is not None and entry[:2] == [status.st_size, status.st_mtime_ns] and not deep:
            return str(entry[2])
        value = sha256_file(path)
        self._known[str(path)] = [status.st_size, status.st_mtime_ns, value]
        self._changed = True
        return value

    def remembered(self, path: Path) -> str | None:
        """The hash of the last reading, whether or not the file changed since."""
        entry = self._known.get(str(path))
        return str(entry[2]) if entry is not None else None

    def forget(self, path: Path) -> None:
        """Drop what is known of a file."""
        self._changed |= self._known.pop(str(path), None) is not None

    def save(self) -> None:
        """Remember for the next process."""
        if not self._changed:
            return
        try:
            write_json(self.record, self._known)
        except OSError:
            return
        self._changed = False
