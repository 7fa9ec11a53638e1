"""Which files are looked at, and that schema and lint both have their say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.engine.registry import Registry
from kit.errors import InvalidInput
from kit.lint.validate import kind_of_file, named_files, repository_files, validate
from kit.manifest.catalog import Catalog
from kit.manifest.source import Problems

REGISTER = "schema_version: 1\nkits: []\n"
KINDS = {
    "pins": "manifests/pins.yaml",
    "manifest": "manifests/defensive_tokens/demo.yaml",
    "expectation": "expected_results/defensive_tokens/demo.paper.yaml",
    "register": "kits.yaml",
}


@pytest.fixture(autouse=True)
def _register(repo: Path) -> None:
    (repo / "kits.yaml").write_text(REGISTER)


@pytest.mark.parametrize(("kind", "file"), KINDS.items())
def test_types_and_schema_are_both_asked(
    repo: Path, catalog: Catalog, registry: Registry, monkeypatch: pytest.MonkeyPatch,
    kind: str, file: str,
) -> None:  # fmt: skip
    assert kind_of_file(repo / file) == kind
    before = [hit for hit in validate(catalog, [repo / file], registry) if hit.level == "error"]
    assert before == []

    def refuse(data: Any, source: Any, name: str) -> Problems:
        problems = Problems(source.name)
        problems.add(2, 1, f"the schema of {name} says no")
        return problems

    monkeypatch.setattr("kit.manifest.load._schema_problems", refuse)
    (hit,) = [hit for hit in validate(catalog, [repo / file], registry) if hit.rule == "schema"]
    assert (hit.level, hit.message) == ("error", f"the schema of {kind} says no")
    assert hit.where == f"{file}:2:1"


def test_a_file_that_cannot_be_read_stops_no_other(
    repo: Path, catalog: Catalog, registry: Registry
) -> None:
    (repo / "other.yaml").write_text("a: 1\n")
    seen: list[Path] = []
    files = [repo / "none.yaml", repo / "other.yaml", repo / KINDS["pins"]]
    hits = validate(catalog, files, registry, seen.append)
    assert seen == files
    wrong = [hit for hit in hits if hit.rule == "schema"]
    assert [hit.where for hit in wrong] == ["none.yaml", "other.yaml"]
    assert wrong[0].message == "no such file"
    assert "(they are told apart by the keys" in wrong[1].message


def test_of_a_folder_every_file_of_the_kit_is_meant(repo: Path) -> None:
    """Hidden files, those that runs left, those of others and folders are passed by."""
    ours = {
        "pins.yaml": REGISTER, "deep/er/x.yml": "steps: []\n", "x.json": '{"cells": []}',
        "runs.yaml": REGISTER, "broken.yaml": "a: [\n",
    }  # fmt: skip
    others = {
        ".hidden/x.yaml": REGISTER, "deep/.x.yaml": REGISTER, "runs/a/x.yaml": REGISTER,
        "deep/runs/x.yaml": REGISTER, "other.yaml": "a: 1\n", "broken.json": "{", "x.txt": "kits:",
    }  # fmt: skip
    here = repo / "mine"
    for name, text in (ours | others).items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    (here / "folder.yaml").mkdir()
    assert named_files([here]) == sorted(here / name for name in ours)
    assert named_files([here / "other.yaml", here / "deep"]) == [
        here / "other.yaml", here / "deep/er/x.yml",
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match="no manifest, pins or expectation") as caught:
        named_files([here / "runs" / "a" / "..", here / "folder.yaml"])
    assert caught.value.where == str(here / "folder.yaml")


def test_without_names_everything_of_the_repository_is_looked_at(
    repo: Path, catalog: Catalog, registry: Registry
) -> None:
    seen: list[Path] = []
    validate(catalog, None, registry, seen.append)
    assert seen == repository_files(catalog)
    names = {path.relative_to(repo).as_posix() for path in seen}
    assert {KINDS[kind] for kind in ("pins", "manifest", "expectation")} <= names
