"""Collecting: the run directory of a plan that ``kit step`` has run, or what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.engine.events import read_events
from kit.engine.one_step import run_instance
from kit.engine.session import Options, collect
from kit.engine.store import Store
from kit.errors import EXIT_FAILED, EXIT_OK, StepFailed
from kit.results.plan import Plan
from tests.engine.conftest import ToyPins, plan_of
from tests.engine.test_cli import kit, last_line, repository
from tests.engine.test_session import closed

__all__ = ["repository"]

Run = Callable[..., Path]


def collected(plan: Plan, folder: Path, **options: object) -> Path:
    return collect(
        plan,
        home=folder / "home",
        pins=ToyPins(folder),
        options=Options(runs_dir=folder / "runs"),
        argv=["kit", "collect"],
        **options,  # type: ignore[arg-type]
    )


def run_steps(plan: Plan, folder: Path) -> None:
    """As another engine does it: one call of ``kit step`` each."""
    for number, one in enumerate(plan.instances):
        events = folder / "steps" / str(number) / "events.jsonl"
        options, home = Options(jobs=1), folder / "home"
        run_instance(plan, one.id, home=home, pins=ToyPins(folder), options=options, events=events)


def test_it_is_the_directory_of_a_run(tmp_path: Path) -> None:
    plan = plan_of()
    run_steps(plan, tmp_path)
    folder = collected(plan, tmp_path, events=tmp_path / "steps")
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "finished"
    assert {step["state"] for step in record["steps"].values()} == {"cached"}
    assert all(step["started"] for step in record["steps"].values())
    assert len(json.loads((folder / "results.json").read_text())["cells"]) == 3
    assert (folder / "plan.json").read_bytes() == plan.to_json()
    events = list(read_events(folder / "events.jsonl"))
    assert sum(item["event"] == "step-done" for item in events) == 7
    assert sum(item["event"] == "metric" for item in events) == 3
    assert sum(item["event"].startswith("run-") for item in events) == 2  # this one's own
    # What the steps said comes first and in the order of time; then what collecting says itself.
    own = next(i for i, item in enumerate(events) if item["event"].startswith("run-"))
    times = [item["time"] for item in events[:own]]
    assert len(times) > 7
    assert times == sorted(times)
    assert all("step" in item for item in events[:own])
    assert len(closed(folder)) == 5


def test_logs_come_along(tmp_path: Path, run_toy: Run) -> None:
    run_toy()
    logs = tmp_path / "steps" / "0" / "logs"
    logs.mkdir(parents=True)
    (logs / "make[seed=0].log").write_text("printed")
    (logs / "worker-1.log").write_text("of nobody")
    folder = collected(plan_of(), tmp_path, events=tmp_path / "steps")
    assert [path.name for path in (folder / "logs").iterdir()] == ["make[seed=0].log"]


def test_a_missing_step_is_named_and_nothing_is_run(tmp_path: Path, run_toy: Run) -> None:
    before, plan = run_toy(), plan_of()
    table = Store(tmp_path / "home").path(plan.by_id["table"].key)
    shutil.rmtree(table)
    with pytest.raises(StepFailed, match="1 of 7 steps are not finished: table") as caught:
        collected(plan, tmp_path)
    assert "kit step PLAN 'table'" in caught.value.next_step
    assert list((tmp_path / "runs").iterdir()) == [before]
    assert not table.exists()


def test_damaged_outputs_are_not_collected(tmp_path: Path, run_toy: Run) -> None:
    run_toy()
    plan = plan_of()
    data = Store(tmp_path / "home").path(plan.instances[0].key) / "data.txt"
    data.chmod(0o644)
    data.write_text(data.read_text().swapcase())
    with pytest.raises(StepFailed, match=r"3 of 7 .*make\[seed=0\], mix\[seed=0\], table"):
        collected(plan, tmp_path)


def test_the_command(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit("plan", "toy", "--json")
    Path("plan.json").write_text(capsys.readouterr().out)
    assert kit("collect", "plan.json") == EXIT_FAILED
    assert "7 of 7 steps are not finished" in capsys.readouterr().err
    for number, step in enumerate(plan_of().by_id):
        link = f"finished/{number}"
        assert kit("step", "plan.json", step, "--link", link) == EXIT_OK
        assert Path(link).exists()
    capsys.readouterr()
    assert kit("collect", "plan.json", "--runs-dir", "elsewhere") == EXIT_OK
    folder = Path(last_line(capsys))
    assert folder.parent == Path("elsewhere")
    assert kit("run", "toy") == EXIT_OK
    again = Path(last_line(capsys))
    assert (folder / "results.json").read_bytes() == (again / "results.json").read_bytes()
