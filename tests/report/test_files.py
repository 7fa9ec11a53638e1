"""Reading run directories: what is wrong is said, and what to type next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.errors import InvalidInput, KitError
from kit.report.files import read_run, write_file
from kit.report.html import render
from tests.report.runs import write_run


def refusal(folder: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_run(folder)
    return caught.value.render()


def test_no_directory(tmp_path: Path) -> None:
    assert "there is no such run directory" in refusal(tmp_path / "absent")


def test_not_verified_yet(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", verdict=None)
    assert f"next: kit verify {folder}" in refusal(folder)


@pytest.mark.parametrize("name", ["verdict.json", "results.json", "plan.json", "record.json"])
@pytest.mark.parametrize("keep", [0, 1, 200])
def test_truncated(tmp_path: Path, name: str, keep: int) -> None:
    folder = write_run(tmp_path / "run")
    path = folder / name
    path.write_bytes(path.read_bytes()[:keep])
    said = refusal(folder)
    assert "not complete JSON" in said
    assert "next:" in said


def test_other_schema_version(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    content = json.loads((folder / "verdict.json").read_text())
    content["schema_version"] = 7
    (folder / "verdict.json").write_text(json.dumps(content))
    said = refusal(folder)
    assert "has schema_version 7; this kit reads 1" in said
    assert "newer kit" in said


def test_wrong_shape_names_the_field(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "verdict.json").write_text('{"schema_version": 1, "cells": 3}')
    assert "expected shape" in refusal(folder)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "verdict.json").write_bytes(b'{"schema_version": 1, "experiment": "\xff"}')
    assert "verdict.json" in refusal(folder)


def test_broken_response_names_its_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "responses.jsonl").write_text('{"response": "fine"}\n\n{"respo')
    with pytest.raises(InvalidInput) as caught:
        render(read_run(folder), show_generations=True)
    assert "responses.jsonl:3" in str(caught.value)


def test_write_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_file(path, "one")
    write_file(path, "two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_write_to_an_absent_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(KitError) as caught:
        write_file(tmp_path / "absent" / "report.html", "x")
    assert "-o FILE" in caught.value.render()
    assert f"there is no folder {tmp_path / 'absent'}" in caught.value.render()
    assert caught.value.exit_code == 4
    with pytest.raises(KitError, match="this is a folder") as caught:
        write_file(tmp_path, "x")
    assert caught.value.exit_code == 4
