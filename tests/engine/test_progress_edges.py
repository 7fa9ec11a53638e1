"""Where the estimate of time left and the live table change: zeros, borders, more than one."""

from __future__ import annotations

import io
import sys

import pytest

from kit.engine.events import event
from kit.engine.progress import PlainRenderer, Progress, RichRenderer, Running, short_time
from tests.engine.conftest import manifest, plan_of
from tests.engine.test_progress import Clock, feed, progressing

SIX = plan_of(
    manifest(
        profiles={
            "mini": {
                "summary": "s",
                "matrix": {"seed": list(range(6))},
                "set": {"make": {"seed": "${seed}"}},
                "resources": {
                    "make": {"minutes": 0.01},
                    "mix": {"minutes": 2},
                    "table": {"minutes": 0},
                },
            }
        }
    )
)


def six(now: float = 100.0) -> tuple[Progress, Clock]:
    """Six makes of 0.6 planned seconds, six mixes of 120, a table of none; begun at ``now``."""
    clock = Clock()
    clock.now = now
    return Progress(SIX, clock=clock), clock


def test_elapsed_counts_from_the_begin_of_the_run() -> None:
    made, clock = six()
    assert made.elapsed() == 0.0
    clock.now = 107.5
    assert made.elapsed() == 7.5


def test_measured_over_planned_also_below_a_second() -> None:
    made, _ = six()
    mix, make = made.plan.by_id["mix[seed=0]"], made.plan.by_id["make[seed=5]"]
    assert made.expected(mix) == 120.0
    feed(made, "step-done", "make[seed=0]", seconds=1.8)
    assert made.expected(mix) == pytest.approx(360.0)  # three times what was planned
    assert made.expected(make) == pytest.approx(1.8)
    assert made.left() == pytest.approx(5 * 1.8 + 6 * 360)
    feed(made, "step-done", "make[seed=1]", seconds=0.6)
    assert made.expected(make) == pytest.approx(1.2)  # the mean of both
    assert made.left() == pytest.approx(4 * 1.2 + 6 * 240)


def test_a_plan_of_no_minutes_is_taken_as_it_is() -> None:
    made, _ = six()
    feed(made, "step-done", "table", seconds=50.0)
    assert made.expected(made.plan.by_id["mix[seed=0]"]) == 120.0


def test_cached_and_failed_steps_are_no_measurements() -> None:
    made, _ = six()
    feed(made, "step-cached", "make[seed=0]")
    feed(made, "step-failed", "make[seed=1]")
    counts = made.steps["make"]
    assert (counts.total, counts.cached, counts.failed, counts.run, counts.finished) == (
        6, 1, 1, 0, 1,
    )  # fmt: skip
    assert made.left() == pytest.approx(4 * 0.6 + 6 * 120)


@pytest.mark.parametrize(("done", "total", "fraction"), [(0, 0, 0.0), (1, 1, 1.0), (1, 4, 0.25)])
def test_what_a_step_reports_as_done(done: int, total: int, fraction: float) -> None:
    assert Running(SIX.instances[0], 0.0, done, total).fraction == fraction


@pytest.mark.parametrize(("done", "left"), [(3, 120 - 6), (4, 6 / 0.04 - 6)])
def test_its_own_word_counts_above_three_percent(done: int, left: float) -> None:
    made, clock = six()
    for seed in range(6):
        feed(made, "step-cached", f"make[seed={seed}]")
        if seed:
            feed(made, "step-cached", f"mix[seed={seed}]")
    feed(made, "step-started", "mix[seed=0]")
    clock.now += 6.0
    feed(made, "progress", "mix[seed=0]", done=done, total=100)
    assert made.left() == pytest.approx(left)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0s"), (59.94, "59.9s"), (60, "1m00s"), (60.6, "1m01s"), (3540, "59m00s"),
        (3600, "1h00m"), (3660, "1h01m"), (36060, "10h01m"),
    ],
)  # fmt: skip
def test_short_times_at_their_borders(seconds: float, words: str) -> None:
    assert short_time(seconds) == words


def test_a_line_says_the_steps_own_time_or_the_runs() -> None:
    made, clock = six()
    stream = io.StringIO()
    shown = PlainRenderer(made, stream)
    clock.now = 103.0
    feed(made, "step-started", "mix[seed=0]")
    clock.now = 105.0
    shown.show(event("note", "mix[seed=0]", text="x"))
    shown.show(event("note", text="y"))
    shown.show(event("step-done", "make[seed=0]", seconds=0.0))
    times = [line.split("] ")[1].split()[1] for line in stream.getvalue().splitlines()]
    assert times == ["2.0s", "5.0s", "0.0s"]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error passes for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.usefixtures("terminal")
def test_the_live_table_leaves_the_streams_alone_and_moves_with_the_clock(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, clock = progressing()
    streams = sys.stdout, sys.stderr
    shown = RichRenderer(made)
    assert (sys.stdout, sys.stderr) == streams
    try:
        capsys.readouterr()
        clock.now = 3.0
        shown.tick()
        assert "3.0s elapsed" in capsys.readouterr().err
        clock.now = 3.1
        shown.tick()  # too soon
        assert capsys.readouterr().err == ""
        clock.now = 3.25
        shown.tick()
        assert "3.2s elapsed" in capsys.readouterr().err
        clock.now = 9.0
    finally:
        shown.close()
    assert "9.0s elapsed" in capsys.readouterr().err
    shown._live.refresh()
    assert not shown._live.is_started


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (event("canary", "table", id="moved", passed=False, detail="d"), "[table] moved FAILED: d"),
        (event("canary", "table", id="moved", passed=True, detail="d"), ""),
        (event("note", "table", text="t"), "[table] t"),
        (event("note", text="t"), "t"),
        (event("step-waiting", "table", holder="process 7"), "process 7"),
        (event("step-done", "table", seconds=1.0), ""),
        (event("metric", "table", name="loss", value=1.0, at=1), ""),
    ],
)
def test_what_stays_above_the_table(
    capsys: pytest.CaptureFixture[str], item: dict[str, object], said: str
) -> None:
    shown = RichRenderer(progressing()[0])
    shown._live.stop()
    capsys.readouterr()
    shown.show(item)
    out = capsys.readouterr().err.strip()
    assert said in out
    assert bool(said) is bool(out)
    if said == "t":
        assert out == "t"


def rows(made: Progress) -> tuple[list[list[object]], str]:
    """Cells of the live table, a list a row, and the line below it."""
    shown = RichRenderer(made)
    shown._live.stop()
    group = shown._table()
    _, table, more = group.renderables  # type: ignore[attr-defined]
    columns = [list(column.cells) for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)], str(more)


def test_the_table_shows_shares_and_three_of_what_runs() -> None:
    made, _ = six()
    feed(made, "step-cached", "make[seed=0]")
    feed(made, "step-done", "make[seed=1]", seconds=65.0)
    for seed in range(2, 6):
        feed(made, "step-started", f"make[seed={seed}]")
    feed(made, "progress", "make[seed=2]", done=1, total=4, unit="x")
    feed(made, "progress", "make[seed=3]", done=1, total=2, unit="y")
    feed(made, "step-cached", "mix[seed=0]")
    feed(made, "step-failed", "mix[seed=1]")
    (make, mix, table), more = rows(made)
    bars = [row[1] for row in (make, mix, table)]
    assert [(bar.completed, bar.total) for bar in bars] == [  # type: ignore[attr-defined]
        (2.75, 6), (1, 6), (0, 1),
    ]  # fmt: skip
    assert [str(row[2]) for row in (make, mix, table)] == ["2/6", "1/6", "0/1"]
    assert [str(row[3]) for row in (make, mix, table)] == ["1m05s", "cached", ""]
    assert str(make[4]) == "seed=2 1/4 x, seed=3 1/2 y, seed=4"
    assert str(mix[4]).strip() == "1 failed"
    assert more == ""


@pytest.mark.parametrize(("count", "more"), [(24, ""), (27, "... and 3 more")])
def test_a_long_table_is_cut(count: int, more: str) -> None:
    steps = [{"id": f"s{n}", "kind": "toy/fail", "version": 1} for n in range(count)]
    profile = {"summary": "s", "set": {f"s{n}": {"how": "raise"} for n in range(count)}}
    plan = plan_of(manifest(steps=steps, results="s0", profiles={"mini": profile}))
    shown, below = rows(Progress(plan))
    assert [str(row[0]) for row in shown] == [f"s{n}" for n in range(24)]
    assert below == more
