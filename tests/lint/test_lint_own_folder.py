"""Rules that matter most in a folder of one's own: what pins declare, and what is on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.lint import lint_manifest, lint_pins
from kit.manifest.catalog import Catalog
from kit.manifest.load import read_manifest, read_pins

PINS = """
schema_version: 1
pins:
  - { id: model, kind: folder, title: M, licence: l, folder: . }
  - { id: texts, kind: folder, title: T, licence: l, folder: . }
"""
MANIFEST = """
schema_version: 1
id: x
family: x
version: 1-A
title: X
summary: X
variant: as-reported
documents: []
results: label
steps:
  - id: label
    kind: defensive-tokens/self-label
    version: 1
    inputs: { model: { model: base }, pool: { pin: texts } }
profiles:
  own:
    summary: s
    models: { base: { pin: model } }
    set: { label: { max_new_tokens: 4, empty_data: no-turn, scope: all } }
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a manifest and its pins."""
    (tmp_path / "pins.yaml").write_text(PINS)
    (tmp_path / "x.yaml").write_text(MANIFEST)
    return tmp_path


def test_a_pin_declares_what_the_kind_needs_of_it(mine: Path) -> None:
    found = [
        hit
        for hit in lint_manifest(read_manifest(mine / "x.yaml"), Catalog())
        if hit.rule == "pin-needs"
    ]
    assert len(found) == 1
    assert found[0].where.endswith("x.yaml:15:22")
    assert "needs 'chat_format' of its model, and the pin 'model' declares none" in found[0].message
    assert "kit kinds defensive-tokens/self-label" in found[0].next_step
    text = PINS.replace("title: M,", "title: M, attributes: { chat_format: tokenizer },")
    (mine / "pins.yaml").write_text(text)
    again = lint_manifest(read_manifest(mine / "x.yaml"), Catalog())
    assert [hit for hit in again if hit.rule == "pin-needs"] == []


def test_a_folder_that_a_pin_names_is_there(mine: Path) -> None:
    def said() -> list[str]:
        found = lint_pins(read_pins(mine / "pins.yaml"), Catalog())
        return [hit.message for hit in found if hit.rule == "own-folder"]

    assert said() == []
    (mine / "pins.yaml").write_text(PINS.replace("folder: . }", "folder: data }", 1))
    assert len(said()) == 1
    assert "there is nothing at" in said()[0]
    listed = PINS.replace("folder: . }", "folder: ., files: [{ path: x.yaml }, { path: y.txt }] }")
    (mine / "pins.yaml").write_text(listed)
    assert [message[-5:] for message in said()] == ["y.txt", "y.txt"]


FUNCTION = """
results: evaluate
steps:
  - id: evaluate
    kind: defensive-tokens/evaluate
    version: 2
    inputs: { model: { model: base }, evaluation: { pin: texts }, attacks: { pin: texts } }
profiles:
  own:
    summary: s
    models: { base: { pin: model } }
    set:
      evaluate:
        layout: before-bos
        attacks: [naive]
        max_new_tokens: 8
        seed: 42
        accuracy: false
        refusal_rule: as-reported
        defences: [undefended, "filter=a_defence_of_mine:gone"]
"""


def _absent(mine: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    monkeypatch.syspath_prepend(str(mine))
    (mine / "x.yaml").write_text(MANIFEST[: MANIFEST.index("results:")] + FUNCTION.lstrip())
    hits = lint_manifest(read_manifest(mine / "x.yaml"), Catalog())
    return [(hit.where, hit.message, hit.next_step) for hit in hits if hit.rule == "parameters"]


def test_a_function_that_is_not_there_is_an_error_at_its_place(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hit,) = _absent(mine, monkeypatch)
    assert hit[0].endswith("x.yaml:28:32")
    assert hit[1] == "there is no module 'a_defence_of_mine'"
    assert "pyproject.toml" in hit[2]
    module = mine / "a_defence_of_mine.py"
    module.write_text("raise SystemExit('nothing imports this')\ndef gones(data, order): ...\n")
    (hit,) = _absent(mine, monkeypatch)
    assert hit[1:] == ("a_defence_of_mine has no function 'gone'", "did you mean 'gones'?")
    module.write_text("def gone(:\n")
    (hit,) = _absent(mine, monkeypatch)
    assert "cannot be read: invalid syntax" in hit[1]
    for text in ("def gone(data, order): ...", "gone = str.join", "from os import *"):
        module.write_text(text)
        assert _absent(mine, monkeypatch) == []
