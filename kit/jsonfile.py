"""The one way to read JSON that the kit did not make a moment ago.

Whatever is wrong with a file (no UTF-8, cut off, nested beyond measure, another shape, another
format version) becomes an :class:`kit.errors.InvalidInput` that names it. A reader that can make
the file again, as the store can, catches that; everybody else lets it pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from kit.errors import InvalidInput

T = TypeVar("T")

AGAIN = "kit run again; finished steps are kept"
"""What to do about a damaged file of a run directory."""


class _Versioned(Struct):
    schema_version: int | None = None


def decode(
    content: bytes, kind: type[T], *, where: str, next_step: str = "", version: int | None = None
) -> T:
    """JSON as its type.

    Args:
        content: The bytes.
        kind: What they must be.
        where: File (and line) for the message.
        next_step: What to type when they are not.
        version: The ``schema_version`` that the object must have, where its format has versions.

    Raises:
        InvalidInput: Not UTF-8, not JSON, not complete, nested too deeply, of another version or
            another shape.
    """
    try:
        if version is not None:
            _check_version(msgspec.json.decode(content, type=_Versioned), version, where, next_step)
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"does not have the expected shape: {error}", where=where, next_step=next_step
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"is not UTF-8: {error.reason} at byte {error.start}", where=where, next_step=next_step
        ) from None
    except RecursionError:
        raise InvalidInput("is nested too deeply", where=where, next_step=next_step) from None
    except msgspec.DecodeError as error:
        literal = b"NaN" in content or b"Infinity" in content
        raise InvalidInput(
            f"is not complete JSON: {error}",
            where=where,
            why="NaN and Infinity are no JSON"
            if literal
            else "the file was cut off or edited by hand",
            next_step=next_step,
        ) from None


def read(path: Path, kind: type[T], *, next_step: str = "", version: int | None = None) -> T:
    """A JSON file as its type; see :func:`decode`.

    Raises:
        InvalidInput: The operating system does not give the file, or it is not what it must be.
    """
    return decode(
        content_of(path, next_step=next_step),
        kind,
        where=str(path),
        next_step=next_step,
        version=version,
    )


def content_of(path: Path, *, next_step: str = "") -> bytes:
    """The bytes of a file.

    Raises:
        InvalidInput: The operating system does not give them.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error, next_step) from None


def lines(path: Path, kind: type[T], *, next_step: str = "") -> Iterator[tuple[int, T]]:
    """Number (from 1) and value of each line of a JSON-lines file; empty lines are left out.

    Raises:
        InvalidInput: See :func:`decode`; the line is named.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error, next_step) from None
    with file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, decode(line, kind, where=f"{path}:{number}", next_step=next_step)


def _unreadable(path: Path, error: OSError, next_step: str) -> InvalidInput:
    why = error.strerror or str(error)
    return InvalidInput(f"cannot be read: {why}", where=str(path), next_step=next_step)


def _check_version(made: _Versioned, version: int, where: str, next_step: str) -> None:
    has = made.schema_version
    what = f"has schema_version {has}; this kit reads {version}"
    if has is None:
        what, why = "has no schema_version", "it is no file of the kit, or of a very old one"
    elif has < version:
        why = "it was written by an older kit"
    elif has > version:
        why = "it was written by a newer kit"
        next_step = "update this kit" + (f", or {next_step}" if next_step else "")
    else:
        return
    raise InvalidInput(what, where=where, why=why, next_step=next_step)
