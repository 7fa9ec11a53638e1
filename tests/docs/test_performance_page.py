"""The performance page shows what the records say."""

from __future__ import annotations

from benchmarks.write_page import END, PAGE, START, tables


def test_tables_are_those_of_the_records() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"{START}\n{tables()}\n{END}" in text
