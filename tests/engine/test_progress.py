"""Time left, and the three renderers."""

from __future__ import annotations

import io
import json

import pytest

from kit.engine.events import Event, event
from kit.engine.progress import (
    JsonRenderer,
    PlainRenderer,
    Progress,
    RichRenderer,
    describe,
    renderer,
    short_time,
)
from tests.engine.conftest import manifest, plan_of


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def progressing(jobs: int = 1) -> tuple[Progress, Clock]:
    """Three makes, three mixes (two minutes each) and a table (none)."""
    clock = Clock()
    profile = {
        "summary": "small",
        "matrix": {"seed": [0, 1, 2]},
        "set": {"make": {"seed": "${seed}"}},
        "resources": {
            "make": {"minutes": 1},
            "mix": {"minutes": 2},
            "table": {"minutes": 0},
        },
    }
    return Progress(plan_of(manifest(profiles={"mini": profile})), jobs=jobs, clock=clock), clock


def feed(made: Progress, name: str, step: str, **fields: object) -> Event:
    item = event(name, step, **fields)
    made.update(item)
    return item


def test_the_plan_is_the_first_guess() -> None:
    assert progressing()[0].left() == 9 * 60
    assert progressing(jobs=2)[0].left() == 4.5 * 60


def test_measured_times_correct_the_plan() -> None:
    made, clock = progressing()
    feed(made, "step-started", "make[seed=0]")
    clock.now = 6.0  # a tenth of what was planned
    feed(made, "step-done", "make[seed=0]", seconds=6.0)
    assert made.left() == pytest.approx(2 * 6 + 3 * 12)
    assert made.expected(made.plan.by_id["make[seed=1]"]) == 6.0
    assert made.finished == 1


def test_a_running_steps_own_progress_counts() -> None:
    made, clock = progressing()
    for seed in (0, 1, 2):
        feed(made, "step-cached", f"make[seed={seed}]")
    for seed in (0, 1):
        feed(made, "step-cached", f"mix[seed={seed}]")
    feed(made, "step-started", "mix[seed=2]")
    clock.now = 30.0
    assert made.left() == pytest.approx(90)
    feed(made, "progress", "mix[seed=2]", done=1, total=10, unit="steps")
    assert made.left() == pytest.approx(270)


def test_nothing_left() -> None:
    made, _ = progressing()
    for one in made.plan.instances:
        feed(made, "step-cached", one.id)
    assert made.left() == 0
    assert made.finished == 7


def test_events_of_the_run_and_failures() -> None:
    made, _ = progressing()
    made.update(event("run-started"))
    feed(made, "step-started", "make[seed=0]")
    feed(made, "step-failed", "make[seed=0]")
    assert made.steps["make"].failed == 1
    assert not made.running


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0s"), (59.9, "59.9s"), (65, "1m05s"), (3599, "59m59s"), (7800, "2h10m")],
)
def test_short_time(seconds: float, words: str) -> None:
    assert short_time(seconds) == words


def plain(made: Progress, *items: Event) -> list[str]:
    stream = io.StringIO()
    shown = PlainRenderer(made, stream)
    for item in items:
        made.update(item)
        shown.show(item)
    shown.tick()
    shown.close()
    return stream.getvalue().splitlines()


def test_plain_lines_are_greppable() -> None:
    made, clock = progressing()
    started = event("step-started", "make[seed=0]")
    made.update(started)
    clock.now = 6.0
    done = event("step-done", "make[seed=0]", seconds=6.0)
    assert plain(made, done) == ["[make[seed=0]] done 6.0s 48.0s"]


def test_plain_keeps_every_event_on_its_line() -> None:
    made, _ = progressing()
    (line,) = plain(made, event("note", "table", text="one\ntwo"))
    assert line == "[table] note 0.0s 9m00s one | two"


def test_plain_leaves_out_curves_and_most_progress() -> None:
    made, clock = progressing()
    made.update(event("step-started", "table"))
    progress = event("progress", "table", done=1, total=9, unit="x")
    assert plain(made, event("metric", "table", name="l", value=1.0, at=1), progress) == []
    stream = io.StringIO()
    shown = PlainRenderer(made, stream)
    shown.show(progress)
    clock.now = 11.0
    shown.show(progress)
    assert "[table] progress 11.0s" in stream.getvalue()
    assert "1/9 x" in stream.getvalue()


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (event("canary", "x", id="moved", passed=False, detail="0 of 3"), "moved FAILED: 0 of 3"),
        (event("step-waiting", "x", holder="process 1"), "waiting for process 1"),
        (event("step-damaged", "x", problem="bad", moved_to="y"), "bad; moved to tmp/y"),
        (event("step-failed", "x", message="why"), "why"),
        (event("run-finished", summary="7 run"), "7 run"),
        (event("step-started", "x"), ""),
    ],
)
def test_descriptions(item: Event, words: str) -> None:
    assert words in describe(item)


def test_json_lines_are_events(capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = progressing()
    shown = renderer("json", made)
    assert isinstance(shown, JsonRenderer)
    shown.show(event("note", "table", text="ä"))
    shown.tick()
    shown.close()
    assert json.loads(capsys.readouterr().out)["text"] == "ä"


def test_rich_draws_counts_and_escapes_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    made, clock = progressing()
    shown = renderer("rich", made)
    assert isinstance(shown, RichRenderer)
    for item in (
        event("step-started", "make[seed=0]"),
        event("progress", "make[seed=0]", done=3, total=9, unit="parts"),
        event("step-failed", "mix[seed=1]", message="[bold]no[/bold]"),
    ):
        made.update(item)
        shown.show(item)
    clock.now = 1.0
    shown.tick()
    shown.close()
    out = capsys.readouterr()
    assert out.out == ""  # stdout belongs to the run directory
    assert "toy mini  0/7 steps" in out.err
    assert "seed=0 3/9 parts" in out.err
    assert "[bold]no[/bold]" in out.err
    assert "\x1b[3" not in out.err  # no colours off a terminal


def test_plain_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = progressing()
    renderer("plain", made).show(event("note", "table", text="x"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "[table] note" in captured.err


def test_plain_progress_is_printed_once_an_interval_of_each_step() -> None:
    """Whatever the clock shows when the run begins."""
    made, clock = progressing()
    clock.now = 5000.0
    stream = io.StringIO()
    shown = PlainRenderer(made, stream)
    for second in range(0, 41):
        clock.now = 5000.0 + second
        for step in ("table", "make[seed=0]") if second > 14 else ("table",):
            shown.show(event("progress", step, done=second, total=99, unit="x"))
    lines = stream.getvalue().splitlines()
    seen = {step: [line.rsplit(" ", 2)[1] for line in lines if line.startswith(f"[{step}]")]
            for step in ("table", "make[seed=0]")}  # fmt: skip
    assert seen == {
        "table": ["10/99", "20/99", "30/99", "40/99"],
        "make[seed=0]": ["25/99", "35/99"],
    }


def test_time_left_counts_gpus_apart_and_never_less_than_the_longest() -> None:
    clock = Clock()
    profile = {
        "summary": "small", "matrix": {"seed": [0, 1, 2, 3]},
        "set": {"make": {"seed": "${seed}"}},
        "resources": {"make": {"minutes": 1}, "mix": {"minutes": 3, "gpus": 1},
                      "table": {"minutes": 0}},
    }  # fmt: skip
    plan = plan_of(manifest(profiles={"mini": profile}))

    def made(jobs: int, gpus: int) -> Progress:
        return Progress(plan, jobs=jobs, gpus=gpus, clock=clock)

    assert made(1, 1).left() == 4 * 180
    assert made(1, 3).left() == 240  # four minutes of CPU, and as long on three GPUs
    assert made(99, 99).left() == 180  # no more at once than there are
    assert made(0, 0).left() == 4 * 180
    one = made(4, 4)
    feed(one, "step-started", "mix[seed=0]")
    clock.now += 200.0
    for seed in range(4):
        feed(one, "step-cached", f"make[seed={seed}]")
    assert one.left() == pytest.approx(3 * 180 / 4)  # it should have ended
    feed(one, "progress", "mix[seed=0]", done=1, total=2)
    assert one.left() == pytest.approx(200)
    feed(one, "step-stopped", "mix[seed=0]")
    assert one.left() == pytest.approx(3 * 180 / 3)


def test_the_table_counts_finished_failed_and_running() -> None:
    made, clock = progressing()
    clock.now = 1.0
    for name, step, fields in (
        ("step-cached", "make[seed=0]", {}),
        ("step-done", "mix[seed=0]", {"seconds": 3.0}),
        ("step-failed", "make[seed=1]", {}),
        ("step-started", "make[seed=2]", {}),
    ):
        feed(made, name, step, **fields)
    feed(made, "progress", "make[seed=2]", done=1, total=4, unit="x")
    rich = pytest.importorskip("rich.console")
    console = rich.Console(width=120, file=io.StringIO(), force_terminal=False)
    renderer_ = RichRenderer(made)
    console.print(renderer_._table())
    renderer_._live.stop()
    head, make, mix, table, *_ = console.file.getvalue().splitlines()
    assert "2/7 steps" in head
    assert "1.0s elapsed" in head
    assert make.split()[0] == "make"
    assert "1/3" in make
    assert "cached" in make
    assert "1 failed  seed=2 1/4 x" in make
    assert "1/3" in mix
    assert "3.0s" in mix
    assert "0/1" in table
    assert "cached" not in mix + table
