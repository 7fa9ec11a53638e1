"""Short Markdown, escaped for every renderer it may be pasted into."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.report.files import read_run
from kit.report.html import render
from kit.report.markdown import code, escape, render_markdown
from kit.results.record import Blind
from tests.report.builders import cell, verdict
from tests.report.extremes import HOSTILE, large_verdict, write_hostile
from tests.report.runs import write_run

HEADINGS = [
    "Claims", "Tables", "Environment", "Inputs", "Deviations", "Not run", "Commands",
    "Known departures",
]  # fmt: skip


def test_sections_and_content(tmp_path: Path) -> None:
    text = render_markdown(read_run(write_run(tmp_path / "run")))
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == HEADINGS
    assert text.startswith("# tiny-adapt: PARTIALLY\n")
    assert "| **holds** (primary) |" in text
    assert "| 33.7 |" in text
    assert "`kit reproduce tiny-adapt --profile mini`" in text
    assert "\n\n\n" not in text


def test_a_blind_run_says_so_in_the_head(tmp_path: Path) -> None:
    for name, blind, words in (
        ("a", None, ""),
        ("b", Blind(from_store=0), "**blind**: results hashed before the expectation was read"),
        ("c", Blind(from_store=3), "hashed before the expectation was read; 3 steps cached"),
    ):
        run = read_run(write_run(tmp_path / name, verdict=verdict(blind=blind)))
        head, page = render_markdown(run).partition("## Claims")[0], render(run)
        assert ("blind" in head) == ("blind" in page) == (blind is not None)
        assert words in head
        assert words.replace("**blind**: ", "") in page.partition("</section>")[0]


def test_same_run_same_text(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert render_markdown(run) == render_markdown(run)


def test_every_table_line_has_as_many_cells_as_its_head(tmp_path: Path) -> None:
    for folder in (write_run(tmp_path / "a"), write_hostile(tmp_path / "b")):
        width = 0
        for line in render_markdown(read_run(folder)).splitlines():
            if not line.startswith("|"):
                width = 0
                continue
            bars = len(re.findall(r"(?<!\\)\|", line))
            width = width or bars
            assert bars == width, line


def test_large_grid_stays_short(tmp_path: Path) -> None:
    text = render_markdown(read_run(write_run(tmp_path / "run", verdict=large_verdict(10_000))))
    assert len(text) < 150_000
    assert "further cells in verdict.json" in text
    assert "further tables in verdict.json" in text


def items(text: str, section: str) -> tuple[int, int]:
    """How many items a section lists, and how many more it says there are."""
    part = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("- ")]
    more = [int(found[1]) for line in lines if (found := re.match(r"- and (\d+) more,", line))]
    assert len(more) <= 1
    assert 0 not in more
    return len(lines) - len(more), sum(more)


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 50])
def test_what_is_not_listed_is_counted(tmp_path: Path, count: int) -> None:
    made = verdict(
        cells=[cell(f"t/{i}", verdict="deviates") for i in range(count)],
        claims=[],
        not_covered=[f"The step {i} was not run." for i in range(count)],
    )
    text = render_markdown(read_run(write_run(tmp_path / "run", verdict=made)))
    for section in ("Deviations", "Not run"):
        assert items(text, section) == (min(count, 20), max(0, count - 20))
    assert ("Everything was run." in text) == (count == 0)


def test_hostile_text_is_inert(tmp_path: Path) -> None:
    text = render_markdown(read_run(write_hostile(tmp_path / "run")))
    outside = re.sub(r"(`+)[^`].*?\1", "", re.sub(r"\\.", "", text))
    assert "<" not in outside
    assert "](" not in outside
    assert not re.search(r"https?:|javascript:", outside)
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text) == []


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("[28.0, 40.8]", "[28.0, 40.8]"),
        ("snake_case", "snake_case"),
        ("_em_", "\\_em\\_"),
        ("[x](y)", "[x]\\(y)"),
        ("- item", "\\- item"),
        ("1. item", "1\\. item"),
        ("a | b", "a \\| b"),
        ("<b>", "&lt;b&gt;"),
        ("see www.evil.example", "see www&#46;evil.example"),
        ("HTTPS://a ftp:b data:c www.d", "HTTPS&#58;//a ftp&#58;b data&#58;c www&#46;d"),
    ],
)
def test_escapes(raw: str, escaped: str) -> None:
    assert escape(raw) == escaped


@given(st.text(max_size=50))
def test_escaped_text_is_one_line_without_tags(text: str) -> None:
    shown = escape(text)
    assert "\n" not in shown
    assert "<" not in shown


@pytest.mark.parametrize("text", [*HOSTILE, "a``b`c", "`"])
def test_code_span_cannot_be_left(text: str) -> None:
    span = code(text)
    fence = re.match(r"`+", span)
    assert fence is not None
    assert fence.group() not in re.findall(r"`+", span)[1:-1]
