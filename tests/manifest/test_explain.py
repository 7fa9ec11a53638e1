"""What a value may be, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import Many
from kit.manifest.explain import _union_words
from kit.manifest.load import read_manifest

INTEGER, NUMBER, TEXT, NOTHING = ({"type": of} for of in ("integer", "number", "string", "null"))


@pytest.mark.parametrize(
    ("branches", "said"),
    [
        ([INTEGER, NOTHING], "a whole number"),
        ([INTEGER, NUMBER], "a number"),
        ([NUMBER, INTEGER, TEXT], "a number or text"),
        ([INTEGER, TEXT], "a whole number or text"),
        ([{"enum": ["a", 1]}, {"$ref": "#/$defs/Pin"}], "one of a, 1 or a map (pin)"),
        ([TEXT, TEXT], "text"),
    ],
    ids=range(6),
)
def test_a_choice_of_types_names_each_once(branches: list[dict[str, object]], said: str) -> None:
    assert _union_words(branches) == said


MANIFEST = """
schema_version: 1
id: x
family: f
version: 1-A
title: T
summary: S
variant: as-reported
documents: []
results: a
steps: [{ id: a, kind: f/a, version: 1 }]
profiles:
  p:
    summary: s
"""


def said_of(tmp_path: Path, old: str, new: str) -> tuple[str, str]:
    """What is said of a manifest with another line, and the remedy."""
    assert MANIFEST.count(old) == 1
    (tmp_path / "x.yaml").write_text(MANIFEST.replace(old, new))
    with pytest.raises(Many) as caught:
        read_manifest(tmp_path / "x.yaml")
    (error,) = caught.value.errors
    return error.what, error.next_step


@pytest.mark.parametrize(
    ("old", "new", "what", "remedy"),
    [
        ("title: T", "title: 12", "title must be text, not the number 12", 'quotes: "12"'),
        ("title: T", "title: true", "not the truth value true", 'write it in quotes: "true"'),
        ("title: T", "title: ", "title must be text, not nothing", ""),
        ("title: T", "title: [1]", "title must be text, not a list", ""),
        ("title: T", "title: {a: 1}", "title must be text, not a map", ""),
        ("schema_version: 1", 'schema_version: "1"', "the text '1'", "did you mean '1'?"),
        ("summary: s", 'summary: s\n    gpu: "true"', "gpu must be true or false", ""),
        ("summary: s", "summary: s\n    gpu: 1", "gpu must be true or false, not the number 1", ""),
        ("version: 1 }", 'version: "1" }', "a whole number", "write it without quotes: 1"),
        ("version: 1 }", "version: 1.0 }", "a whole number", ""),
        ("version: 1 }", "version: one }", "a whole number", ""),
        ("version: 1 }", "version: 0 }", "at least 1", ""),
        ("variant: as-reported", "variant: as-reportd", "variant must be one of",
         "did you mean 'as-reported'?"),
        ("variant: as-reported", "variant: 7", "variant must be one of", ""),
        ("id: x", "id: X", "lower-case letters, digits, '.' and '-' (64 at most)", ""),
        ("title: T", 'title: ""', "title must be filled in", ""),
        ("title: T", "title: T\ntitel: T", "unknown key 'titel'", "did you mean 'title'?"),
        ("title: T", "title: T\nqqqq: T", "unknown key 'qqqq'", "keys here: schema_version, id"),
        ("title: T", "", "the document lacks the key 'title'", ""),
        ("    summary: s", "    gpu: true", "profiles.p lacks the key 'summary'", ""),
        ("steps: [{", "steps: [7, {", "item 1 of steps must be a map, not the number 7", ""),
        ("summary: s", "summary: s\n    models: {m: {pin: 12}}", "text", 'quotes: "12"'),
        ("summary: s", "summary: s\n    models: {m: {pin: [a]}}", "must be text, not a list", ""),
        ("summary: s", "summary: s\n    set: {a: {x: {value: 1, source: d}}}",
         "source must be at least 3 characters long", ""),
        ("  p:", "  P:", "the key 'P' is not a name of lower-case letters", ""),
    ],
)  # fmt: skip
def test_a_slip_is_said_in_words_with_what_to_type(
    tmp_path: Path, old: str, new: str, what: str, remedy: str
) -> None:
    said, advice = said_of(tmp_path, old, new)
    assert what in said
    assert remedy in advice
    assert bool(remedy) == bool(advice)


def test_of_a_choice_all_is_said_of_what_was_meant(tmp_path: Path) -> None:
    """A value with its source, as it was begun, and not the value alone that it could have been."""
    text = MANIFEST.replace("summary: s", "summary: s\n    set: {a: {x: {value: 1, sorce: d}}}")
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(Many) as caught:
        read_manifest(tmp_path / "x.yaml")
    assert [error.what for error in caught.value.errors] == [
        "profiles.p.set.a.x lacks the key 'source'", "unknown key 'sorce'",
    ]  # fmt: skip


def test_two_keys_that_are_missing_are_named_once_each(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        MANIFEST.replace("title: T\n", "").replace("family: f\n", "").replace("id: x", "id: 7")
    )
    with pytest.raises(Many) as caught:
        read_manifest(tmp_path / "x.yaml")
    assert sorted(error.what for error in caught.value.errors) == [
        "id must be text, not the number 7",
        "the document lacks the key 'family'",
        "the document lacks the key 'title'",
    ]


def test_what_is_long_is_shown_by_its_beginning(tmp_path: Path) -> None:
    said, _ = said_of(tmp_path, "variant: as-reported", f"variant: {'b' * 200}")
    assert "b" * 40 in said
    assert "b" * 61 not in said
    assert said.endswith("...'")
    assert said.count("b") == 57 + "variant must be one of".count("b")
    said, _ = said_of(tmp_path, "variant: as-reported", f"variant: {'b' * 60}")
    assert said.endswith(f"the text '{'b' * 60}'")
    said, _ = said_of(tmp_path, "variant: as-reported", f"variant: {'b' * 40}")
    assert said.endswith(f"the text '{'b' * 40}'")
