"""Labels of single items: where they are, and what a line of them must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.errors import InvalidInput
from kit.results.labels import LabelFiles, Labels, LabelTable, read_labels


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


A: dict[str, Any] = {"id": "a", "items": ["x", "y"], "labels": [1, 0]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (A, "id 'a' stands twice"),
        (A | {"id": "b", "labels": [1, 2]}, "something other than 0 and 1"),
        (A | {"id": "b", "labels": [-1, 0]}, "something other than 0 and 1"),
        (A | {"id": "b", "items": ["x"]}, "field 'items' of 'b': 1 value for 2 labels"),
        (A | {"id": "b", "items": ["x", "x"]}, "names an item twice"),
        (A | {"id": "b", "choices": ["A"] * 3}, "field 'choices' of 'b': 3 values for 2 labels"),
        (A | {"id": "b", "answers": ["A"]}, "field 'answers' of 'b': 1 value"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(
    tmp_path: Path, line: dict[str, Any], said: str
) -> None:
    path = write(tmp_path / "labels.jsonl", A, line)
    with pytest.raises(InvalidInput, match=said) as caught:
        read_labels(path)
    assert caught.value.where == f"{path}:2"


def test_lines_with_and_without_names_are_read(tmp_path: Path) -> None:
    whole = A | {"id": "b", "choices": ["A", "B"], "answers": ["A", "A"], "more": 1}
    bare = {"id": "c", "labels": [True, True, False]}
    found = read_labels(write(tmp_path / "labels.jsonl", A, whole, bare))
    assert list(found) == ["a", "b", "c"]
    assert [(line.k, line.n) for line in found.values()] == [(1, 2), (1, 2), (2, 3)]


def test_a_reference_is_looked_for_in_the_folders_in_turn(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    write(first / "one.jsonl", A)
    write(second / "one.jsonl", A | {"labels": [0, 0]})
    write(second / "two.jsonl", A, A | {"id": "b"})
    write(tmp_path / "outside.jsonl", A)
    labels = LabelFiles(first, second)
    assert labels.get("one.jsonl#a").labels == labels.get("one.jsonl").labels == [1, 0]
    assert labels.get("two.jsonl#b").id == "b"
    for reference, said in (
        ("two.jsonl", "no line with id ''"),
        ("one.jsonl#b", "no line with id 'b'"),
        ("none.jsonl#a", "labels file 'none.jsonl' is missing"),
        ("../outside.jsonl#a", "is missing"),
        ("x" * 300, "is missing"),
        ("\0", "is missing"),
    ):
        with pytest.raises(InvalidInput, match=said):
            labels.get(reference)
    with pytest.raises(InvalidInput, match="is missing") as caught:
        LabelFiles().get("none.jsonl#a")
    assert caught.value.where == "none.jsonl"


def test_a_file_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.jsonl", A)
    labels = LabelFiles(tmp_path)
    before = labels.get("labels.jsonl#a")
    path.unlink()
    assert labels.get("labels.jsonl#a") is before


def test_labels_in_memory_come_before_those_of_files(tmp_path: Path) -> None:
    write(tmp_path / "labels.jsonl", A)
    mine = Labels(id="m", labels=[1])
    labels = LabelTable({"labels.jsonl#m": mine}, LabelFiles(tmp_path))
    assert labels.get("labels.jsonl#m") is mine
    assert labels.get("labels.jsonl#a").id == "a"
    with pytest.raises(InvalidInput, match=r"labels 'labels\.jsonl#a' are missing"):
        LabelTable({"labels.jsonl#m": mine}).get("labels.jsonl#a")
