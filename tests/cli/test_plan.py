"""``kit plan``: the table on and off a terminal, and the plan as programs read it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from kit.cli import plan as command
from kit.cli import planning
from kit.engine.registry import Registry
from kit.manifest.types import Resources
from kit.results.plan import Plan
from tests.cli.conftest import Kit


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.setattr("kit.engine.registry.load_registry", lambda: registry)


@pytest.fixture
def mini(repo: Path) -> Plan:
    return planning.prepare("demo", "mini").plan


def needing(plan: Plan, *needs: Resources) -> Plan:
    """The plan with other needs of its first instances."""
    made = [replace(one, resources=need)
            for one, need in zip(plan.instances, needs, strict=False)]  # fmt: skip
    return replace(plan, instances=[*made, *plan.instances[len(made) :]])


def shown(plan: Plan, monkeypatch: pytest.MonkeyPatch, *, terminal: bool, **given: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, color_system=None)
    monkeypatch.setattr("kit.cli.state.console", lambda: console)
    cached = given.get("cached", ())
    command._table(plan, cached, plan.totals(cached, given.get("present", ())))
    return out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("gpus", [0, 1])
def test_columns_of_gpus_stand_where_some_are_needed_or_a_program_reads(
    mini: Plan, monkeypatch: pytest.MonkeyPatch, terminal: bool, gpus: int
) -> None:
    plan = needing(mini, *[Resources(gpus=gpus)] * len(mini.instances))
    head = shown(plan, monkeypatch, terminal=terminal).splitlines()[1]
    assert ("GPU GB" in head) == (bool(gpus) or not terminal)
    assert head.split()[:4] == ["step", "kind", "instances", "cached"]
    assert head.split()[-1] == "minutes"


def test_a_line_a_step_has_its_largest_needs_and_all_its_minutes(
    mini: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, instances = next((s, i) for s, i in mini.by_step.items() if len(i) > 1)
    ids = [one.id for one in instances]
    needs = {ids[0]: Resources(gpus=2, gpu_memory_gb=7, memory_gb=3, minutes=1.5),
             ids[1]: Resources(gpus=1, gpu_memory_gb=9, memory_gb=5, minutes=2)}  # fmt: skip
    small = Resources(memory_gb=1, minutes=0)
    plan = replace(mini, instances=[replace(one, resources=needs.get(one.id, small))
                                    for one in mini.instances])  # fmt: skip
    text = shown(plan, monkeypatch, terminal=False, cached={ids[0]})
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == [step])
    assert row[2:] == [str(len(ids)), "1", "2", "9", "5", "3.5"]
    assert f"to run: {len(mini.instances) - 1} of {len(mini.instances)} steps" in text
    assert f"demo {mini.version} ({mini.variant}), mini\n" in text
    assert [line for line in text.splitlines() if line.startswith("note: ")] == [
        f"note: {note}" for note in mini.notes
    ]


def test_a_modified_plan_says_so(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planning.prepare("demo", "mini", overrides=("train.steps=3",)).plan
    assert "mini, modified\n" in shown(plan, monkeypatch, terminal=False)


def test_programs_read_the_whole_plan(kit: Kit, repo: Path) -> None:
    made = json.loads(kit("plan", "demo", "--profile", "mini", "--json").out)
    ids = [one["id"] for one in made["instances"]]
    assert [one["command"] for one in made["instances"]] == [
        ["kit", "step", "plan.json", id] for id in ids
    ]
    assert not any(one["cached"] for one in made["instances"])
    assert made["totals"]["to_run"] == made["totals"]["instances"] == len(ids)
    assert "tiny-new" in made["pins_present"]
    assert "tiny-old" not in made["pins_present"], "nobody brought it"


def test_pins_that_are_here_stand_in_order(mini: Plan) -> None:
    totals = mini.totals((), ())
    made = json.loads(command._json(mini, [mini.instances[0].id], ["b", "c", "a"], totals))  # type: ignore[arg-type]
    assert made["pins_present"] == ["a", "b", "c"]
    assert [one["cached"] for one in made["instances"]].index(True) == 0
    assert sum(one["cached"] for one in made["instances"]) == 1


def test_the_lines_that_launch_a_step_are_printed_alone(
    kit: Kit, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def lines(plan: Plan, instance: Any, how: str, *, nodes: int | None, file: str) -> str:
        given.append((instance.step, how, nodes, file))
        return "line\n"

    monkeypatch.setattr("kit.engine.launch.lines", lines)
    line = ["plan", "demo", "--profile", "mini", "--launch", "torchrun", "table", "--nodes", "2"]
    assert kit(*line).out == "line\n"
    assert given == [("table", "torchrun", 2, "plan.json")]


def test_a_plan_file_opens_the_folder_of_its_own_manifest(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mini: Plan
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr("kit.manifest.home.open_folder", opened.append)
    for own in ("", str(tmp_path / "own.yaml")):
        (tmp_path / "plan.json").write_bytes(replace(mini, manifest=own).to_json())
        made = planning.read_planned(tmp_path / "plan.json")
        assert (made.plan.experiment, made.plan.manifest) == ("demo", own)
        assert made.pins.pins.keys() == {pin.id for pin in mini.pins}
    assert opened == [tmp_path / "own.yaml"]
