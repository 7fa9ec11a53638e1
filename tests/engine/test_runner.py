"""Which step runs next: any graph, any order of completion, any failures."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.engine import runner
from kit.engine.events import event
from kit.engine.job import Job
from kit.engine.store import Store
from kit.results.plan import Plan
from tests.engine.fakes import FakeExecutor, Harness, plan_of_graph

DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Up to ten steps, each reading some of those before it."""
    names = [f"s{number}" for number in range(draw(st.integers(1, 10)))]
    return {
        name: draw(st.lists(st.sampled_from(names[:place]), unique=True, max_size=4))
        if place
        else []
        for place, name in enumerate(names)
    }


def below(graph: dict[str, list[str]], roots: set[str]) -> set[str]:
    """Steps that read one of the roots, directly or not."""
    found: set[str] = set()
    for name, reads in graph.items():
        if (roots | found) & set(reads):
            found.add(name)
    return found


def names_of(plan: Plan, store: Store, id: str) -> object:
    return json.loads((store.path(plan.by_id[id].key) / "names.json").read_text())


def expected(graph: dict[str, list[str]], id: str) -> object:
    return [id, [expected(graph, one) for one in graph[id]]]


@settings(max_examples=25, deadline=None)
@given(graphs(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_every_graph_is_done_in_order_and_once(graph, slots, chance) -> None:  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of_graph(graph)
        done = Harness(plan, Path(folder), FakeExecutor(slots, pick=chance.randrange))
        assert done.in_state("run") == set(graph)
        assert sorted(done.executor.started) == sorted(graph)
        assert done.executor.most <= slots
        ends = {step: place for place, step in enumerate(done.named("step-done"))}
        starts = {item["step"]: n for n, item in enumerate(done.events)}
        assert all(ends[one] < ends[name] for name, reads in graph.items() for one in reads)
        assert len(starts) == len(graph)
        for name in graph:
            assert names_of(plan, done.store, name) == expected(graph, name)
        again = Harness(plan, Path(folder))
        assert again.in_state("cached") == set(graph)
        assert again.made == 0


@settings(max_examples=25, deadline=None)
@given(graphs(), st.data())
def test_keep_going_does_all_that_does_not_depend_on_a_failure(graph, data) -> None:  # type: ignore[no-untyped-def]
    failing = data.draw(st.sets(st.sampled_from(sorted(graph)), min_size=1))
    lost = below(graph, failing)
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of_graph(graph, failing=sorted(failing))
        done = Harness(plan, Path(folder), keep_going=True)
        assert done.in_state("blocked") == lost
        assert done.in_state("failed") == failing - lost
        assert done.in_state("run") == set(graph) - failing - lost
        assert {error.where for error in done.outcome.errors} == failing - lost
        assert done.outcome.status == "failed"


@settings(max_examples=20, deadline=None)
@given(graphs(), st.data())
def test_after_any_loss_the_rest_is_kept(graph, data) -> None:  # type: ignore[no-untyped-def]
    """Outputs that are lost are made again; equal outputs keep everything that read them."""
    lost = data.draw(st.sets(st.sampled_from(sorted(graph))))
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of_graph(graph)
        first = Harness(plan, Path(folder))
        for name in lost:
            first.store.set_aside(plan.by_id[name].key)
        again = Harness(plan, Path(folder))
        assert again.in_state("run") == lost
        assert again.in_state("cached") == set(graph) - lost


def test_plan_order_decides_among_what_is_ready(tmp_path: Path) -> None:
    graph: dict[str, list[str]] = {name: [] for name in "fedcba"}
    assert Harness(plan_of_graph(graph), tmp_path).executor.started == list("fedcba")


def test_a_step_that_does_not_fit_lets_others_pass(tmp_path: Path) -> None:
    class Picky(FakeExecutor):
        def fits(self, instance):  # type: ignore[no-untyped-def]
            alone = instance.id != "a" or not self.running
            return (
                super().fits(instance)
                and alone
                and "a" not in [j.instance.id for j in self.running]
            )

    graph: dict[str, list[str]] = {"x": [], "a": [], "y": [], "z": []}
    done = Harness(plan_of_graph(graph), tmp_path, Picky(slots=2))
    assert done.executor.started[:2] == ["x", "y"]
    assert done.in_state("run") == set(graph)


def test_a_failure_stops_what_has_not_started(tmp_path: Path) -> None:
    graph: dict[str, list[str]] = {"bad": [], "with": [], "later": [], "reads": ["bad"]}
    done = Harness(plan_of_graph(graph, failing=["bad"]), tmp_path)
    assert done.in_state("failed") == {"bad"}
    assert done.in_state("run") == {"with"}
    assert done.in_state("waiting") == {"later"}
    assert done.in_state("blocked") == {"reads"}
    assert done.executor.closed


def test_equal_steps_run_once_and_fail_once(tmp_path: Path) -> None:
    graph = {"a": [], "b": [], "reads-a": ["a"], "reads-b": ["b"]}
    same = {"b": "a", "reads-b": "reads-a"}
    done = Harness(plan_of_graph(graph, same=same), tmp_path)
    assert done.executor.started == ["a", "reads-a"]
    assert done.in_state("cached") == {"b", "reads-b"}
    plan = plan_of_graph({"a": [], "b": []}, same={"b": "a"}, failing=["a", "b"])
    failed = Harness(plan, tmp_path / "other")
    assert failed.executor.started == ["a"]
    assert failed.in_state("blocked") == {"b"}


def test_another_output_redoes_its_readers_and_the_same_does_not(tmp_path: Path) -> None:
    plan = plan_of_graph(DIAMOND)
    first = Harness(plan, tmp_path)
    first.store.set_aside(plan.by_id["b"].key)
    assert Harness(plan, tmp_path).in_state("run") == {"b"}
    first.store.set_aside(plan.by_id["b"].key)
    (tmp_path / "salt-b").write_text("!")
    third = Harness(plan, tmp_path)
    assert third.in_state("run") == {"b", "d"}
    assert third.named("step-outdated") == ["d"]
    assert names_of(plan, third.store, "d") == ["d", [["b!", [["a", []]]], ["c", [["a", []]]]]]


def test_only_some_steps(tmp_path: Path) -> None:
    plan = plan_of_graph(DIAMOND)
    first = Harness(plan, tmp_path)
    digests = {id: entry.digest for id, entry in first.outcome.entries.items()}
    first.store.set_aside(plan.by_id["d"].key)
    first.store.set_aside(plan.by_id["a"].key)
    done = Harness(plan, tmp_path, only={"d"}, digests=digests)
    assert done.outcome.states == {"d": "run"}


def test_outputs_that_vanish_are_a_failure(tmp_path: Path) -> None:
    plan = plan_of_graph({"a": [], "b": ["a"]})

    class Thief(FakeExecutor):
        def poll(self, seconds):  # type: ignore[no-untyped-def]
            events = super().poll(seconds)
            if events:
                Store(tmp_path).set_aside(plan.by_id["a"].key)
            return events

    done = Harness(plan, tmp_path, Thief())
    assert done.in_state("failed") == {"a"}
    assert "not in the store although it finished" in str(done.outcome.errors[0])


def test_a_step_that_another_run_finished_meanwhile_is_taken(tmp_path: Path) -> None:
    plan = plan_of_graph({"a": [], "b": ["a"]})

    def other_run(job: Job) -> None:
        if job.instance.id == "a":
            Harness(plan, tmp_path)

    done = Harness(plan, tmp_path, FakeExecutor(before=other_run))
    assert done.in_state("cached") == {"a", "b"}
    assert done.named("step-started") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_and_keeps(tmp_path: Path, number: signal.Signals) -> None:
    plan = plan_of_graph({"a": [], "b": [], "c": ["a"], "d": ["c"]})

    def interrupt(job: Job) -> None:
        if job.instance.id == "b":
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    done = Harness(plan, tmp_path, FakeExecutor(before=interrupt))
    assert signal.getsignal(number) is before
    assert done.outcome.interrupted
    assert done.outcome.status == "interrupted"
    assert done.executor.stops == [False]
    assert done.in_state("run") == {"a", "b"}
    assert done.in_state("stopped") == {"c"}
    assert done.in_state("waiting") == {"d"}
    again = Harness(plan, tmp_path)
    assert again.in_state("cached") == {"a", "b"}
    assert again.in_state("run") == {"c", "d"}


def test_insisting_kills(tmp_path: Path) -> None:
    plan = plan_of_graph({"a": [], "b": []})

    class Deaf(FakeExecutor):
        def poll(self, seconds):  # type: ignore[no-untyped-def]
            os.kill(os.getpid(), signal.SIGINT)
            return []

    done = Harness(plan, tmp_path, Deaf())
    assert done.executor.stops == [False, True]
    assert done.in_state("stopped") == {"a", "b"}
    assert done.executor.closed


def test_the_display_is_kept_alive(tmp_path: Path) -> None:
    ticks: list[None] = []
    Harness(plan_of_graph(DIAMOND), tmp_path, tick=lambda: ticks.append(None))
    assert len(ticks) >= 4


def test_many_ready_steps_are_not_quadratic(tmp_path: Path) -> None:
    """A hundred ready steps on one slot ask a bounded number of times whether one fits."""
    asked = [0]

    class Counting(FakeExecutor):
        def fits(self, instance):  # type: ignore[no-untyped-def]
            asked[0] += 1
            return super().fits(instance)

    graph: dict[str, list[str]] = {f"s{n}": [] for n in range(120)}
    Harness(plan_of_graph(graph), tmp_path, Counting(slots=1))
    assert asked[0] < 120 * 40


def test_what_ends_after_the_signal_is_kept_and_told(tmp_path: Path) -> None:
    """A step that was nearly done is done; nothing is killed for it, nothing new begins."""
    plan = plan_of_graph({"a": [], "b": ["a"]})

    class Finishing(FakeExecutor):
        asked: ClassVar[list[bool]] = []

        def stop(self, *, kill):  # type: ignore[no-untyped-def]
            self.asked.append(kill)

        def poll(self, seconds):  # type: ignore[no-untyped-def]
            if not self.asked:
                os.kill(os.getpid(), signal.SIGTERM)
                return [event("progress", "a", done=1, total=2)]
            return super().poll(seconds)

    done = Harness(plan, tmp_path, Finishing())
    assert Finishing.asked == [False]
    assert done.outcome.interrupted
    assert (done.in_state("run"), done.in_state("waiting")) == ({"a"}, {"b"})
    names = [item["event"] for item in done.events]
    assert names == ["progress", "step-stopping", "step-started", "step-done"]
    assert done.outcome.entries["a"].digest == done.store.look(plan.by_id["a"].key).entry.digest  # type: ignore[union-attr]


def test_who_does_not_end_in_its_time_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that the slowest of them declares, and a margin."""
    clock = [50.0]
    plan = plan_of_graph({"a": [], "b": []})
    seconds = {"a": 5.0, "b": 20.0}
    monkeypatch.setattr(runner, "stop_seconds", lambda instance: seconds[instance.id])
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Deaf(FakeExecutor):
        def poll(self, seconds):  # type: ignore[no-untyped-def]
            if not self.stops:
                os.kill(os.getpid(), signal.SIGINT)
            else:
                clock[0] += 1.0
            return []

    done = Harness(plan, tmp_path, Deaf())
    assert done.executor.stops == [False, True]
    assert clock[0] == pytest.approx(50.0 + 20.0 + runner.STOP_MARGIN + 1.0, abs=1.0)
    said = {
        item["step"]: item["reason"] for item in done.events if item["event"] == "step-stopping"
    }
    assert "it has 5 s" in said["a"]
    assert "it has 20 s" in said["b"]


@pytest.mark.parametrize("changed", [False, True])
def test_outputs_of_other_code_are_made_again_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    """Only those that are; what reads them follows if they come out otherwise."""
    plan = plan_of_graph({"a": [], "b": []})
    Harness(plan, tmp_path)
    monkeypatch.setattr("kit.engine.worker.changed", lambda entry, registry: changed)
    done = Harness(plan, tmp_path, fresh=["a"])
    (said,) = [item for item in done.events if item["event"] == "step-outdated"]
    assert (said["step"], said["reason"]) == ("a", "its code has changed")
    assert done.in_state("run") == ({"a"} if changed else set())
    assert "b" in done.in_state("cached")
