"""The one reader of JSON: every way in which a file can be wrong names the file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import jsonfile
from kit.errors import InvalidInput


class Made(msgspec.Struct):
    """A file of some format."""

    schema_version: int
    names: list[str] = []
    more: Any = None


GOOD = b'{"schema_version": 1, "names": ["a"]}'
DEEP = b'{"schema_version": 1, "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def test_what_is_right_is_read(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_bytes(GOOD)
    assert jsonfile.read(path, Made, version=1) == Made(1, ["a"])
    assert jsonfile.read(path, dict[str, Any]) == {"schema_version": 1, "names": ["a"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not complete JSON"),
        (GOOD[:20], "is not complete JSON"),
        (b'{"schema_version": 1, "names": ["\xff"]}', "is not UTF-8"),
        (b'{"schema_version": 1, "more": "\xff"}', "is not UTF-8"),
        (DEEP, "is nested too deeply"),
        (b'{"schema_version": 1, "names": 3}', r"expected shape: .*\$\.names"),
        (b"[]", "expected shape"),
        (b'{"schema_version": 1, "more": NaN}', "is not complete JSON"),
        (b'{"schema_version": 7}', "has schema_version 7; this kit reads 1"),
        (b'{"schema_version": 0}', "has schema_version 0; this kit reads 1"),
        (b"{}", "has no schema_version"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_what_to_do(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "made.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as caught:
        jsonfile.read(path, Made, version=1, next_step="make it again")
    assert caught.value.where == str(path)
    assert "make it again" in caught.value.next_step


def test_the_version_is_looked_at_before_the_shape(tmp_path: Path) -> None:
    """A file of another version has another shape; that it is another version is the cause."""
    with pytest.raises(InvalidInput, match="schema_version 2") as caught:
        jsonfile.decode(b'{"schema_version": 2, "names": 3}', Made, where="x", version=1)
    assert "newer kit" in caught.value.why


@pytest.mark.parametrize(
    ("has", "why", "step"),
    [(0, "an older kit", "make it"), (2, "a newer kit", "update this kit, or make it")],
)
def test_a_newer_file_asks_for_a_newer_kit(has: int, why: str, step: str) -> None:
    content = b'{"schema_version": %d}' % has
    with pytest.raises(InvalidInput) as caught:
        jsonfile.decode(content, Made, where="x", version=1, next_step="make it")
    assert (why in caught.value.why, caught.value.next_step) == (True, step)
    with pytest.raises(InvalidInput) as caught:
        jsonfile.decode(content, Made, where="x", version=1)
    assert caught.value.next_step == ("update this kit" if has > 1 else "")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_nan_is_explained(number: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        jsonfile.decode(b'{"more": %s}' % number.encode(), dict[str, Any], where="x")
    assert caught.value.why == "NaN and Infinity are no JSON"
    with pytest.raises(InvalidInput) as caught:
        jsonfile.decode(b'{"more": ', dict[str, Any], where="x")
    assert "cut off" in caught.value.why


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["folder", "absent"])
def test_what_cannot_be_read_is_named(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "made.json"
    make(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        jsonfile.read(path, Made)
    with pytest.raises(InvalidInput, match="cannot be read"):
        list(jsonfile.lines(path, Made))


@pytest.mark.parametrize("error", [OSError("odd"), OSError(5, "odd")])
def test_whatever_the_system_says_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(self: Path) -> bytes:
        raise error

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(InvalidInput, match=r"cannot be read: odd$"):
        jsonfile.read(tmp_path / "made.json", Made)


def test_lines_are_numbered_and_empty_ones_left_out(tmp_path: Path) -> None:
    path = tmp_path / "made.jsonl"
    path.write_bytes(b'\n{"a": 1}\r\n\n{"a": 2}')
    assert list(jsonfile.lines(path, dict[str, int])) == [(2, {"a": 1}), (4, {"a": 2})]
    path.write_bytes(b'{"a": 1}\n{"a": \xff}')
    with pytest.raises(InvalidInput) as caught:
        list(jsonfile.lines(path, dict[str, int]))
    assert caught.value.where == f"{path}:2"


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert jsonfile.decode(content, Made, where="x", version=1).schema_version == 1
