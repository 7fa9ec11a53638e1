"""Write completed pins back into ``pins.yaml``, touching nothing else: comments, order, quoting
and line breaks stay. The new text is read back before it replaces the old one."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from kit.errors import InvalidInput
from kit.manifest.load import load_pins
from kit.manifest.pin_types import Pin
from kit.manifest.text import read_text


def write_pins(path: Path, completed: Sequence[Pin]) -> list[str]:
    """Fill in revision, hashes and sizes of completed pins; drop their ``unconfirmed``.

    Args:
        path: The pin file.
        completed: Pins as :func:`kit.pins.confirm.confirm` returns them.

    Returns:
        Ids of the pins that changed.

    Raises:
        InvalidInput: The result would not be a valid pin file (the file is then left alone), or
            the file is JSON, or cannot be written.
    """
    if path.suffix == ".json":
        raise InvalidInput("only YAML pin files can be completed", where=str(path))
    yaml = _yaml()
    document: Any = yaml.load(read_text(path))
    by_id = {pin.id: pin for pin in completed}
    changed = [
        entry["id"]
        for entry in document["pins"]
        if entry["id"] in by_id and _complete(entry, by_id[entry["id"]])
    ]
    if not changed:
        return []
    out = io.StringIO()
    yaml.dump(document, out)
    _replace(path, out.getvalue())
    return changed


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _complete(entry: Any, pin: Pin) -> bool:
    changed = False
    if pin.revision is not None and entry.get("revision") != pin.revision and pin.repo:
        index = list(entry).index("repo") + 1
        entry.insert(index, "revision", DoubleQuotedScalarString(pin.revision))
        changed = True
    known = {file.path: file for file in pin.files}
    for listed in entry.get("files", []):
        file = known.get(listed["path"])
        if file is None:
            continue
        if file.sha256 is not None and "sha256" not in listed:
            listed.insert(1, "sha256", DoubleQuotedScalarString(file.sha256))
            changed = True
        if file.size is not None and "size" not in listed:
            listed["size"] = file.size
            changed = True
    if pin.unconfirmed is None and "unconfirmed" in entry:
        del entry["unconfirmed"]
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        said = f"confirmed at the source by kit fetch on {day}"
        before = str(entry.get("source", "")).strip()
        entry["source"] = f"{before}; {said}" if before else said
        changed = True
    return changed


def _replace(path: Path, text: str) -> None:
    """Put the new text in place of the old, if it is a valid pin file."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    except OSError as error:
        raise InvalidInput(f"cannot be written: {error.strerror}", where=str(path)) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        load_pins(Path(temporary))
        Path(temporary).chmod(path.stat().st_mode & 0o777)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
