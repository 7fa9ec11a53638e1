"""sha256 of files, with a memory: a file whose size and time are unchanged is not read again."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

_BLOCK = 1 << 20


def sha256_file(path: Path) -> str:
    """sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write JSON like :func:`write_text`."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True))


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
        except (OSError, ValueError):
            loaded = {}
        self._known: dict[str, list[int | str]] = loaded if isinstance(loaded, dict) else {}
        self._changed = False

    def sha256(self, path: Path, *, deep: bool = False) -> str:
        """Hash of a file, read only if it changed since the last time or if ``deep``."""
        status = path.stat()
        entry = self._known.get(str(path))
        fresh = isinstance(entry, list) and entry[:2] == [status.st_size, status.st_mtime_ns]
        if entry is not None and fresh and not deep:
            return str(entry[2])
        value = sha256_file(path)
        self._known[str(path)] = [status.st_size, status.st_mtime_ns, value]
        self._changed = True
        return value

    def remembered(self, path: Path) -> str | None:
        """The hash of the last reading, whether or not the file changed since."""
        entry = self._known.get(str(path))
        return str(entry[2]) if isinstance(entry, list) and len(entry) == 3 else None

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
