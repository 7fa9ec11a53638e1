"""What the code cites of a page of docs/methods stands there, as ``<page>.md, 2.4`` or ``P16``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("defensive_tokens",)
CITED = re.compile(r"\b({pages})\.md,\s+((?:(?:P?\d+(?:\.\d+)*)(?:,\s+|\s+and\s+)?)+)".format(
    pages="|".join(PAGES)
))  # fmt: skip


def facts(page: str) -> set[str]:
    """Numbers of the page's headings and pitfalls."""
    text = (ROOT / "docs" / "methods" / f"{page}.md").read_text(encoding="utf-8")
    return set(re.findall(r"^(?:#+ |- \*\*)(P?\d+(?:\.\d+)*)\b", text, re.MULTILINE))


def citations() -> list[tuple[str, str, str]]:
    """(file, page, number) of every citation in the kit."""
    found = []
    for path in sorted((ROOT / "kit").rglob("*.py")):
        text = re.sub(r"\n\s*(# )?", " ", path.read_text(encoding="utf-8"))
        for page, numbers in CITED.findall(text):
            for number in re.findall(r"P?\d+(?:\.\d+)*", numbers):
                found.append((path.relative_to(ROOT).as_posix(), page, number))
    return found


def test_every_citation_is_there() -> None:
    cited = citations()
    assert len(cited) > 40
    assert [one for one in cited if one[2] not in facts(one[1])] == []


@pytest.mark.parametrize("room", ["methods/defensive_tokens", "steps/defensive_tokens", "lm"])
def test_nothing_cites_what_does_not_ship(room: str) -> None:
    files = (ROOT / "kit" / room).rglob("*.py")
    texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    assert [n for n, text in texts.items() if re.search(r"reference page|pitfalls? P", text)] == []


CHECKPOINT_TRANSFER = re.compile(r"reference\s+page,?\s+(?:sections?\s+)?(\d[\d.]*\d|\d)")


def test_the_reference_page_of_checkpoint_transfer_has_what_is_cited() -> None:
    """Its facts have numbers, as sources of manifests and expectations cite them."""
    page = (ROOT / "docs" / "methods" / "checkpoint-transfer.md").read_text(encoding="utf-8")
    lines = re.findall(r"^- \*\*([^*]+)\*\*", page.partition("## The facts by number")[2], re.M)
    there = {number for line in lines for number in re.findall(r"\d+(?:\.\d+)*", line)}
    cited: dict[str, str] = {}
    for folder in ("manifests", "expected_results", "kit/methods", "kit/steps"):
        for path in sorted((ROOT / folder).glob("**/checkpoint_transfer/*.*")):
            if path.suffix in (".py", ".yaml"):
                text = path.read_text(encoding="utf-8")
                cited |= dict.fromkeys(CHECKPOINT_TRANSFER.findall(text), path.name)
    assert len(cited) > 12
    assert {number: name for number, name in cited.items() if number not in there} == {}
