"""The README is short before it sends its reader on."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_pages_are_named_within_600_words() -> None:
    before, index, after = (ROOT / "README.md").read_text().partition("## Where to read on")
    assert index
    written = re.sub(r"<!-- generated.*?<!-- /generated -->", "", before, flags=re.S)
    assert len(written.split()) <= 600
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    named = set(re.findall(r"docs/([a-z-]+\.md)", after.partition("## ")[0]))
    assert named == pages
