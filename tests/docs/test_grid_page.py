"""The table of grids shows what the record says, and the record keeps the bars."""

from __future__ import annotations

from itertools import pairwise

from benchmarks.write_grid import END, PAGE, START, record, table


def test_the_table_is_that_of_the_record() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"{START}\n{table()}\n\n{END}" in text


def test_the_record_keeps_the_bars() -> None:
    """10,000 cells: planned in 10 s, checked in 10 s, in 1 GB."""
    (row,) = (row for row in record()["rows"] if row["cells"] == 10_000)
    assert row["plan"]["wall"] < 10
    assert row["check"]["wall"] < 10
    assert row["export_memory_gb"] < 1


def test_nothing_is_quadratic() -> None:
    """Twice the cells take twice the time; four times would be quadratic."""
    rows = record()["rows"]
    assert [row["cells"] for row in rows] == [2_500, 5_000, 10_000, 20_000]
    first, last = rows[0], rows[-1]
    for part in ("plan", "check", "run", "snakemake_dry_run"):
        assert last[part]["cpu"] / first[part]["cpu"] < 12, part  # 8 if linear, 64 if quadratic
    assert all(
        b["snakemake"]["cpu"] < a["snakemake"]["cpu"] + 1 for a, b in pairwise(rows)
    )  # too quick for a ratio
