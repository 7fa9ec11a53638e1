"""From a path to clean text: size, encoding, and characters that have no business in a manifest."""

from __future__ import annotations

import re
from pathlib import Path

from kit.errors import InvalidInput
from kit.manifest.source import Problems, shown

MAX_BYTES = 5_000_000

FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e"
    "\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""Control characters (tab and line ends excepted), line separators that editors do not show,
direction overrides that make a reader see another order, lone surrogates, byte order marks."""


def read_text(path: Path) -> str:
    """The text of a file of at most 5 MB of UTF-8; a leading byte order mark is dropped.

    Raises:
        InvalidInput: Absent, a folder, too large, not UTF-8.
    """
    name = shown(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise InvalidInput("this is a folder, not a file", where=name)
        if size > MAX_BYTES:
            raise _too_large(name, size)
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InvalidInput("no such file", where=name, next_step="check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"cannot be read: {reason}", where=name) from None
    if len(data) > MAX_BYTES:
        raise _too_large(name, len(data))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before) - (before.rfind(b"\n") + 1) + 1
        raise InvalidInput(
            f"not UTF-8: byte 0x{data[error.start]:02x} ({error.reason})",
            where=f"{name}:{line}:{column}",
            next_step="save the file as UTF-8",
        ) from None


def _too_large(name: str, size: int) -> InvalidInput:
    return InvalidInput(
        f"{size:,} bytes; the limit is {MAX_BYTES:,}",
        where=name,
        why="a manifest or table of this size is a mistake, and reading it would take minutes",
    )


def check_characters(text: str, problems: Problems) -> None:
    """Note every forbidden character of the raw text."""
    for match in FORBIDDEN.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - (text.rfind("\n", 0, match.start()) + 1) + 1
        problems.add(line, column, _character(match.group()))


def bad_character(value: str) -> str:
    """What is wrong with a decoded string (escapes can hide a control character), or empty."""
    match = FORBIDDEN.search(value)
    return _character(match.group()) if match else ""


def _character(character: str) -> str:
    return f"control or invisible character U+{ord(character):04X}"
