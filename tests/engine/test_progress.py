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
