"""Each rule over pins, on pins that are made for it: what it says and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.lint import pins as rules
from kit.manifest.pin_types import Pin, PinnedFile

SHA, REVISION = "1c" * 32, "0a" * 20
HASHED, BARE = PinnedFile(path="a", sha256=SHA), PinnedFile(path="b")
BASE: dict[str, dict[str, Any]] = {
    "hf-model": {"repo": "a/b", "revision": REVISION, "files": [HASHED]},
    "hf-dataset": {"repo": "a/b", "revision": REVISION, "files": [HASHED]},
    "file": {"url": f"https://x.org/{REVISION}/a", "files": [HASHED]},
    "wheel": {"package": "p", "version": "1", "files": [HASHED]},
    "folder": {"folder": "."},
    "package": {"path": "lm"},
    "unavailable": {"unavailable": "gone"},
}


def pin(kind: str, id: str = "p", **fields: Any) -> Pin:
    about: dict[str, Any] = {"id": id, "kind": kind, "title": "T", "licence": "L", "source": "s"}
    return Pin(**(about | BASE[kind] | fields))


def said(rule: Any, *pins: Pin, folder: Path = Path()) -> list[tuple[Any, ...]]:
    source = SimpleNamespace(path=folder / "pins.yaml")
    context = SimpleNamespace(pins=list(pins), loaded=SimpleNamespace(source=source))
    return [hit.path for hit in rule(context)]


@pytest.mark.parametrize("kind", BASE)
def test_a_pin_with_what_its_kind_needs_is_right(kind: str, tmp_path: Path) -> None:
    every = [getattr(rules, name) for name in ("duplicate_pin", "pin_fields", "unpinned",
             "missing_sha256", "address", "file_path", "own_folder", "package_files",
             "unconfirmed", "pin_source")]  # fmt: skip
    assert [path for rule in every for path in said(rule, pin(kind), folder=tmp_path)] == []


FIELDS = {"repo": "a/b", "revision": REVISION, "url": "https://x.org/a", "path": "lm",
          "package": "p", "version": "1", "folder": ".", "unavailable": "gone"}  # fmt: skip


@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize("field", FIELDS)
def test_every_kind_has_its_fields_and_no_other(kind: str, field: str) -> None:
    mine = field in BASE[kind]
    optional = (field, kind) in {("revision", kind) for kind in ("hf-model", "hf-dataset", "file")}
    without = said(rules.pin_fields, pin(kind, **{field: None}))
    assert without == ([("pins", 0)] if mine and not optional else [])
    given = said(rules.pin_fields, pin(kind, **{field: FIELDS[field]}))
    assert given == ([] if mine or optional else [("pins", 0, field)])


@pytest.mark.parametrize(
    ("rule", "made", "paths"),
    [
        (rules.pin_fields, pin("file", files=[]), [("pins", 0)]),
        (rules.pin_fields, pin("hf-dataset", files=[]), [("pins", 0)]),
        (rules.pin_fields, pin("package", files=[]), []),
        (rules.pin_fields, pin("wheel", files=[HASHED, BARE]), [("pins", 0, "files")]),
        (rules.pin_fields, pin("hf-model", files=[HASHED, BARE]), []),
        (rules.unpinned, pin("hf-dataset", revision=None), [("pins", 0)]),
        (rules.unpinned, pin("file", url="https://x.org/a"), []),
        (rules.unpinned, pin("file", url="https://x.org/a", files=[]), [("pins", 0, "url")]),
        (rules.unpinned, pin("file", url="https://x.org/a", files=[HASHED, BARE]),
         [("pins", 0, "url")]),
        (rules.unpinned, pin("file", files=[BARE]), []),
        (rules.unpinned, pin("file", revision=REVISION), []),
        (rules.unpinned, pin("file", revision="0b" * 20), [("pins", 0, "url")]),
        (rules.missing_sha256, pin("file", files=[HASHED, BARE]), [("pins", 0, "files", 1)]),
        (rules.missing_sha256, pin("wheel", files=[BARE]), [("pins", 0, "files", 0)]),
        (rules.missing_sha256, pin("file", files=[BARE], unconfirmed="u"), []),
        (rules.missing_sha256, pin("package", files=[BARE]), []),
        (rules.address, pin("file", url="ftp://x.org/a"), [("pins", 0, "url")]),
        (rules.address, pin("file", url="a/b"), [("pins", 0, "url")]),
        (rules.address, pin("file", url="https:///a"), [("pins", 0, "url")]),
        (rules.address, pin("file", url="https://me@x.org/a"), [("pins", 0, "url")]),
        (rules.address, pin("file", url="https://:pw@x.org/a"), [("pins", 0, "url")]),
        (rules.address, pin("file", url="https://x.org:99999/a"), [("pins", 0, "url")]),
        (rules.address, pin("hf-model", mirrors=["c/d@main", "https://y.org/"]), []),
        (rules.address, pin("hf-model", mirrors=["c/d", "http://y.org/"]),
         [("pins", 0, "mirrors", 1)]),
        (rules.address, pin("hf-model", mirrors=["c/d"], files=[HASHED, BARE]),
         [("pins", 0, "mirrors")]),
        (rules.address, pin("hf-model", files=[HASHED, BARE]), []),
        (rules.file_path, pin("hf-model", files=[HASHED, BARE, BARE]), [("pins", 0, "files", 2)]),
        (rules.package_files, pin("package", path="no-such"), [("pins", 0, "path")]),
        (rules.package_files, pin("package", files=[PinnedFile(path="load.py"), BARE]),
         [("pins", 0, "files", 1)]),
        (rules.package_files, pin("package", path="lm/load.py",
                                  files=[PinnedFile(path="load.py")]), []),
        (rules.unconfirmed, pin("file", unconfirmed="u"), [("pins", 0, "unconfirmed")]),
        (rules.pin_source, pin("wheel", source=""), [("pins", 0)]),
        (rules.pin_source, pin("folder", source=""), []),
    ],
)  # fmt: skip
def test_a_rule_points_at_the_fault(rule: Any, made: Pin, paths: list[Any]) -> None:
    assert said(rule, made) == paths
    # Pins before it change its place alone.
    after = [("pins", 1, *path[2:]) for path in paths]
    assert said(rule, pin("unavailable", "q"), made) == after


def test_the_second_pin_of_an_id_is_the_one_too_many() -> None:
    twice = [pin("package"), pin("folder", "q"), pin("file")]
    assert said(rules.duplicate_pin, *twice) == [("pins", 2, "id")]


def test_files_of_a_folder_are_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").touch()
    for made, count in (
        (pin("folder", folder="data"), 0),
        (pin("folder", folder="none"), 1),
        (pin("folder", folder="data", files=[HASHED]), 0),
        (pin("folder", folder="data", files=[HASHED, BARE]), 1),
    ):
        found = said(rules.own_folder, made, folder=tmp_path)
        assert found == [("pins", 0, "folder")] * count
