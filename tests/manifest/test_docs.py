"""Generated files and blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.errors import InvalidInput
from kit.lint import rules_table
from kit.manifest import docs
from kit.manifest.tables import cell, experiments, fields, pins, table

ROOT = Path(__file__).parents[2]
NAME = "docs/experiments.md"
PAGE = "# Kit\n\n<!-- generated:experiments -->\nold\n<!-- /generated -->\n\nTail.\n"


def test_the_repository_is_up_to_date() -> None:
    stale = [str(change.path.relative_to(ROOT)) for change in docs.drift(ROOT)]
    assert stale == [], "run: kit docs"


@pytest.fixture(autouse=True)
def _folder(repo: Path) -> None:
    (repo / "docs").mkdir(exist_ok=True)


def test_blocks_are_filled_and_then_stable(repo: Path) -> None:
    (repo / NAME).write_text(PAGE)
    written = docs.write(repo)
    assert [(change.path.name, change.parts) for change in written][-1] == (
        "experiments.md",
        ("experiments",),
    )
    text = (repo / NAME).read_text()
    assert text.startswith("# Kit\n\n<!-- generated:experiments -->\n| experiment |")
    assert text.endswith("<!-- /generated -->\n\nTail.\n")
    assert "| `demo` | A small experiment for the tests | as-reported | mini, paper |" in text
    assert "paper: 3 cells, 1 primary claim |" in text
    assert (repo / "manifests" / "schema" / "pins.json").is_file()
    assert docs.drift(repo) == []


def test_checking_writes_nothing(repo: Path) -> None:
    (repo / NAME).write_text(PAGE)
    assert len(docs.drift(repo)) == 8
    assert (repo / NAME).read_text() == PAGE


def test_unknown_and_unclosed_blocks(repo: Path) -> None:
    (repo / NAME).write_text(PAGE.replace(":experiments", ":experimnets"))
    with pytest.raises(InvalidInput, match="unknown generated block 'experimnets'") as caught:
        docs.drift(repo)
    assert caught.value.where == f"{NAME}:3"
    assert caught.value.next_step == "did you mean 'experiments'?"
    (repo / NAME).write_text(PAGE.replace("<!-- /generated -->", ""))
    with pytest.raises(InvalidInput, match="opened and not closed"):
        docs.drift(repo)


def test_another_room_can_add_a_block(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(docs.BLOCKS, ("README.md", "mine"), "tests.manifest.test_docs:mine")
    monkeypatch.setitem(docs.FILES, "more", "tests.manifest.test_docs:more")
    (repo / "README.md").write_text("<!-- generated:mine -->\n<!-- /generated -->\n")
    docs.write(repo)
    assert (repo / "README.md").read_text() == (
        "<!-- generated:mine -->\nhello from repo\n<!-- /generated -->\n"
    )
    assert (repo / "more.txt").read_text() == "more"


def mine(root: Path) -> str:
    return f"hello from {root.name}"


def more(root: Path) -> dict[Path, str]:
    return {root / "more.txt": "more"}


def test_tables() -> None:
    assert cell("a | b\n c") == "a \\| b c"
    assert table(["x", "y"], [["1", "2"]]) == "| x | y |\n| --- | --- |\n| 1 | 2 |"
    assert "`Sourced.source`" in fields(ROOT)
    assert "| `Pin.kind` | required | One of `file`, `folder`, " in fields(ROOT)
    assert "| **Pin** |  | An exact input." in fields(ROOT)
    assert "| `grim` | error |" in rules_table(ROOT)
    assert "CC BY-NC 4.0" in pins(ROOT)
    assert "`tiny-adapt`" in experiments(ROOT)
