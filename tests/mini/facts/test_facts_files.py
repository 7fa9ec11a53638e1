"""The world as files, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.mini.facts import files
from kit.mini.facts.world import make_world
from kit.mini.worlds import get_world


def test_what_was_written_is_read(tmp_path: Path) -> None:
    files.write_world(tmp_path, 3)
    world = make_world(3)
    assert {n: files.read_texts(tmp_path, n) for n in files.TEXTS} == files.texts(world)
    assert {n: files.read_questions(tmp_path, n) for n in files.QUESTIONS} == files.questions(world)
    assert {n: files.read_requests(tmp_path, n) for n in files.REQUESTS} == files.request_sets(
        world
    )


def test_lines_have_the_declared_fields() -> None:
    made = get_world("facts").files()
    fields = {
        "texts": ["id", "text", "domain", "half"],
        "questions": ["id", "prompt", "options", "answer"],
        "requests": ["id", "domain", "half", "prompt", "chosen", "rejected"],
    }
    for path, content in made.items():
        for line in content.splitlines():
            assert list(json.loads(line)) == fields[path.split("/")[0]]


def test_an_unknown_set_is_named_with_the_known(tmp_path: Path) -> None:
    files.write_world(tmp_path, 0)
    with pytest.raises(ValueError, match=r"no secrets\.jsonl .*benign, forget, .*retain"):
        files.read_texts(tmp_path, "secrets")


def test_nothing_of_this_world_ships() -> None:
    assert get_world("facts").pins() == []
