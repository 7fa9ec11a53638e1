"""JSON is YAML 1.2: read by the same parser, with positions."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from kit.errors import KitError, Many
from kit.manifest.load import parse, read_manifest
from tests.manifest.test_load_yaml import DEMO, errors, write


def test_the_same_manifest_as_json(tmp_path: Path) -> None:
    manifest = read_manifest(DEMO).value
    text = msgspec.json.encode(manifest)
    for name in ("x.json", "x.yaml"):
        assert read_manifest(write(tmp_path, text, name)).value == manifest


def test_positions(tmp_path: Path) -> None:
    source = parse(write(tmp_path, '{\n  "a": [1,\n    {"b": "x"}]\n}\n', "x.json"))
    assert source.position(("a", 1, "b")) == (3, 11)
    assert source.position(("a", 1, "b"), key=True) == (3, 6)
    assert source.root.plain() == {"a": [1, {"b": "x"}]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a" 1}', "x.json:1:"),
        ('{"a": 1 "b": 2}', "x.json:1:"),
        ('{"a": 1} x', "x.json:1:10"),
        ('{"a": 1,\n "b": [2', "x.json:2:"),
        ('{"a": "\\q"}', "x.json:1:"),
        ('{"a": .inf}', "not a finite number"),
        ("", "the document is empty"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_position(
    tmp_path: Path, text: str, said: str
) -> None:
    (error,) = errors(write(tmp_path, text, "x.json"))
    assert said in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "duplicate key 'a'"),
        ('{"a": 1e999}', "absurdly large"),
        ('{"a": 123456789012345678901234567890}', "64 bits"),
        ('{"a": "\\ud800"}', "U+D800 in a string"),
        ('{"a": "\\u0000"}', "U+0000 in a string"),
    ],
)
def test_what_is_json_and_refused_all_the_same(tmp_path: Path, text: str, said: str) -> None:
    (error,) = errors(write(tmp_path, text, "x.json"))
    assert said in error


def test_yaml_that_begins_like_json_is_yaml(tmp_path: Path) -> None:
    assert parse(write(tmp_path, "{a: 1, b: [x, y]}")).root.plain() == {"a": 1, "b": ["x", "y"]}
    assert parse(write(tmp_path, "[1, 2,]")).root.plain() == [1, 2]


def test_json_in_a_yaml_file_keeps_its_escapes(tmp_path: Path) -> None:
    value = {"smile": "\U0001f600", "slash": "a/b", "tab": "a\tb", "quote": '"'}
    assert parse(write(tmp_path, json.dumps(value))).root.plain() == value


def test_a_second_read_of_a_duplicate_does_not_hide_the_rest(tmp_path: Path) -> None:
    with pytest.raises(Many) as caught:
        parse(write(tmp_path, '{"a": 1, "a": 2, "b": 1e999}', "x.json"))
    assert len(caught.value.errors) == 2
    assert isinstance(caught.value, KitError)
