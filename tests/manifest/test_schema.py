"""Schema files and the sentences that violations become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kit.manifest.catalog import Catalog
from kit.manifest.load import read_expectation, read_manifest
from kit.manifest.schema import DRAFT, TYPES, described_schema, field_docstrings, schema_files
from kit.manifest.types import Sourced
from tests.manifest.test_load_yaml import DATA, DEMO, errors, write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", list(TYPES))
def test_a_schema_is_valid_2020_12_and_described(name: str) -> None:
    schema = described_schema(name)
    assert schema["$schema"] == DRAFT
    jsonschema.Draft202012Validator.check_schema(schema)
    assert all("description" in definition for definition in schema["$defs"].values())


def test_committed_schemas_are_current() -> None:
    for path, text in schema_files(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"run: kit docs ({path.name} is stale)"


def test_field_docstrings_come_from_the_source() -> None:
    assert "Document and place" in field_docstrings(Sourced)["source"]


def test_every_file_of_the_repository_passes_both_validators() -> None:
    from kit.lint.validate import repository_files, validate

    catalog = Catalog(ROOT)
    found = validate(catalog, repository_files(catalog))
    assert [finding.render() for finding in found if finding.level == "error"] == []


def broken(tmp_path: Path, change: tuple[str, str], file: Path = DEMO) -> list[str]:
    text = file.read_text()
    assert change[0] in text
    load: Any = read_expectation if "expected" in str(file) else read_manifest
    return errors(write(tmp_path, text.replace(*change, 1)), load)


@pytest.mark.parametrize(
    ("old", "new", "position", "said"),
    [
        ("title: A small", "titel: A small", "5:1", "unknown key 'titel'"),
        ("title: A small", "titel: A small", "5:1", "next: did you mean 'title'?"),
        ("title: A small", "titel: A small", "1:1", "the document lacks the key 'title'"),
        ("version: 1-A", "version: 1", "4:10", "version must be text, not the number 1"),
        ("version: 1-A", "version: 1", "4:10", 'next: write it in quotes: "1"'),
        ("version: 1-A", "version: v1", "4:10", "a version N-X, such as 1-A, not the text 'v1'"),
        ("family: defensive_tokens", "family: De fensive", "3:9", "a name of lower-case letters"),
        ("id: demo", "id: De mo", "2:5", "a name of lower-case letters"),
        ("id: demo", "id: |\n  demo", "2:5", "a name of lower-case letters"),
        ("version: 2", 'version: "2"', "14:14", "a whole number, not the text '2'"),
        ("version: 2", 'version: "2"', "14:14", "next: write it without quotes: 2"),
        ("version: 2", "version: 2.0", "14:14", "a whole number, not the number 2.0"),
        ("version: 2", "version: 0", "14:14", "version must be at least 1, not the number 0"),
        ("version: 2", "version: true", "14:14", "not the truth value true"),
        ("kind: demo/train", "kind: train", "13:11", "a step kind, family/name"),
        ("each: [pair, seed]", "each: pair", "15:11", "each must be a list, not the text 'pair'"),
        ("each: [pair, seed]", "each: [pair, 3]", "15:18", "item 2 of each must be text"),
        ("steps: 20", "steps: null", "42:42", "not null (nothing)"),
        ("steps: 20", "steps: [[1]]", "42:43", "item 1 of steps must be"),
        ("steps: 20", "steps: {value: 1}", "42:42", "lacks the key 'source'"),
        ("minutes: 0.5", "minutes: -1", "44:24", "minutes must be at least 0"),
        ("minutes: 0.5", "minutes: soon", "44:24", "minutes must be a number, not the text 'soon'"),
        ("  mini:\n", "  Tiny:\n", "33:3", "the key 'Tiny' is not a name"),
        ("summary: Two models, two seeds, one table.", "summary: ''", "6:10", "must be filled in"),
        (
            "results: table\n",
            "results: null\n",
            "31:10",
            "results must be text, not null (nothing)",
        ),
    ],
)
def test_violations_are_sentences_at_the_right_place(
    tmp_path: Path, old: str, new: str, position: str, said: str
) -> None:
    found = broken(tmp_path, (old, new))
    assert any(f"x.yaml:{position}: " in line and said in line for line in found), found
    assert not any("is not valid under any of the given schemas" in line for line in found)


def test_a_published_number_must_be_a_string(tmp_path: Path) -> None:
    file = DATA.parent / "expected_results" / "defensive_tokens" / "demo.paper.yaml"
    (error,) = broken(tmp_path, ('value: "1.9"', "value: 1.9"), file)
    assert "value must be text, not the number 1.9" in error
    assert 'write it in quotes: "1.9"' in error
    (error,) = broken(tmp_path, ('value: "1.9"', 'value: "1.9 %"'), file)
    assert "a number as printed, such as '1.9'" in error


def test_a_schema_file_is_usable_by_an_editor(tmp_path: Path) -> None:
    schema = json.loads((ROOT / "manifests" / "schema" / "manifest.json").read_text())
    assert schema["$defs"]["Manifest"]["additionalProperties"] is False
    assert schema["$defs"]["Sourced"]["properties"]["source"]["description"]
