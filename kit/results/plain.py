"""JSON as science reads it: as its type, or a ``ValueError`` that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from kit import jsonfile
from kit.errors import InvalidInput

T = TypeVar("T")


def read_json(path: str | Path, kind: type[T]) -> T:
    """A JSON file as its type, which may be a dataclass.

    Raises:
        ValueError: Absent, not UTF-8, not JSON, nested too deeply, or of another shape.
    """
    try:
        return jsonfile.read(Path(path), kind)
    except InvalidInput as error:
        raise ValueError(str(error)) from None


def read_json_lines(path: str | Path, kind: type[T]) -> list[T]:
    """Every line of a JSON-lines file; empty lines are left out.

    Raises:
        ValueError: As :func:`read_json`; the line is named.
    """
    try:
        return [line for _, line in jsonfile.lines(Path(path), kind)]
    except InvalidInput as error:
        raise ValueError(str(error)) from None
