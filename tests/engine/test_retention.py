"""Intermediate outputs go when they have been read, come back when needed, and never from under a
step; ``kit store`` says what is there and removes what nobody else uses."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.cli.store import command
from kit.engine.inventory import chosen, inventory
from kit.engine.job import Job
from kit.engine.store import Store
from kit.results.plan import Plan
from tests.engine.fakes import FakeExecutor, Harness, plan_of_graph
from tests.engine.test_runner import DIAMOND, expected, graphs, names_of

CHAIN = {"a": [], "b": ["a"], "c": ["b"], "d": ["c"]}


def files(plan: Plan, store: Store, id: str) -> set[str]:
    folder = store.path(plan.by_id[id].key)
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_an_intermediate_output_goes_when_its_last_reader_is_done(tmp_path: Path) -> None:
    plan = plan_of_graph(DIAMOND, intermediate=["a", "b"])
    there: dict[str, bool] = {}

    def look(job: Job) -> None:
        there[job.instance.id] = "names.json" in files(plan, Store(tmp_path), "a")

    done = Harness(plan, tmp_path, FakeExecutor(1, before=look))
    assert there == {"a": False, "b": True, "c": True, "d": False}
    assert done.named("step-dropped") == ["a", "b"]
    assert files(plan, done.store, "a") == {"step.json"}
    assert files(plan, done.store, "c") == {"step.json", "names.json"}
    assert names_of(plan, done.store, "d") == expected(DIAMOND, "d")
    assert done.outcome.entries["a"].files.keys() == {"names.json"}  # what it was is still known


def test_what_was_dropped_is_finished_all_the_same(tmp_path: Path) -> None:
    plan = plan_of_graph(CHAIN, intermediate=["a", "b"])
    Harness(plan, tmp_path)
    again = Harness(plan, tmp_path)
    assert again.in_state("cached") == set(CHAIN)
    assert again.made == 0


def test_what_was_dropped_is_made_again_for_who_needs_it(tmp_path: Path) -> None:
    plan = plan_of_graph(CHAIN, intermediate=["a", "b"])
    store = Harness(plan, tmp_path).store
    assert store.remove(plan.by_id["c"].key)
    again = Harness(plan, tmp_path)
    assert again.executor.started == ["a", "b", "c"]  # b needs a, which was dropped too
    assert again.in_state("cached") == {"d"}
    assert files(plan, store, "a") == files(plan, store, "b") == {"step.json"}
    assert names_of(plan, store, "c") == expected(CHAIN, "c")


def test_they_can_be_kept(tmp_path: Path) -> None:
    plan = plan_of_graph(CHAIN, intermediate=["a", "b"])
    done = Harness(plan, tmp_path, keep_intermediate=True)
    assert done.named("step-dropped") == []
    assert "names.json" in files(plan, done.store, "a")


def test_a_failed_reader_keeps_what_it_reads(tmp_path: Path) -> None:
    plan = plan_of_graph(DIAMOND, intermediate=["a"], failing=["c"])
    done = Harness(plan, tmp_path, keep_going=True)
    assert done.in_state("failed") == {"c"}
    assert "names.json" in files(plan, done.store, "a")


def test_equal_steps_are_dropped_when_the_readers_of_all_are_done(tmp_path: Path) -> None:
    graph = {"a": [], "twin": [], "b": ["a"], "c": ["twin", "b"]}
    plan = plan_of_graph(graph, intermediate=["a", "twin"], same={"twin": "a"})
    assert plan.by_id["a"].key == plan.by_id["twin"].key
    there: dict[str, bool] = {}

    def look(job: Job) -> None:
        there[job.instance.id] = "names.json" in files(plan, Store(tmp_path), "a")

    done = Harness(plan, tmp_path, FakeExecutor(1, before=look))
    assert there["c"]
    assert done.in_state("failed") == set()
    assert files(plan, done.store, "a") == {"step.json"}


@settings(max_examples=40, deadline=None)
@given(graphs(), st.data())
def test_any_graph_ends_right_whatever_is_dropped_or_lost(
    graph: dict[str, list[str]], data: st.DataObject
) -> None:
    names = list(graph)
    intermediate = data.draw(st.lists(st.sampled_from(names), unique=True))
    lost = data.draw(st.lists(st.sampled_from(names), unique=True))
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of_graph(graph, intermediate=intermediate)
        store = Harness(plan, Path(folder)).store
        for id in lost:
            assert store.remove(plan.by_id[id].key)
        again = Harness(plan, Path(folder))
        assert again.in_state("run") | again.in_state("cached") == set(graph)
        read = {source for reads in graph.values() for source in reads}
        for id in names:
            if id in intermediate and id in read:
                assert files(plan, store, id) == {"step.json"}
            else:
                assert names_of(plan, store, id) == expected(graph, id)


def test_nothing_is_taken_from_under_a_step(tmp_path: Path) -> None:
    plan = plan_of_graph(CHAIN)
    store = Harness(plan, tmp_path).store
    key = plan.by_id["a"].key
    with store.reading([key]):
        assert not store.drop(key)
        assert not store.remove(key)
    with store.lock(key):
        assert not store.drop(key)
        assert not store.remove(key)
    assert "names.json" in files(plan, store, "a")
    assert store.drop(key)
    assert not store.drop(key)
    assert store.remove(key)
    assert not list((tmp_path / "locks").iterdir())


def test_a_drop_that_was_killed_in_the_middle_is_a_drop(tmp_path: Path) -> None:
    plan = plan_of_graph(CHAIN, intermediate=["a"])
    store = Harness(plan, tmp_path).store
    folder = store.path(plan.by_id["a"].key)
    (folder / "names.json").write_text("left over")  # the mark is set, the file is still there
    assert Harness(plan, tmp_path).in_state("cached") == set(CHAIN)
    assert store.remove(plan.by_id["b"].key)
    again = Harness(plan, tmp_path)
    assert names_of(plan, store, "b") == expected(CHAIN, "b")
    assert again.executor.started == ["a", "b"]


@pytest.fixture
def two_runs(run_toy: Callable[..., Path], tmp_path: Path) -> tuple[Store, Path, Path]:
    """Two runs of one plan, and a third step of another one."""
    from tests.engine.conftest import manifest, plan_of

    first = run_toy()
    other = plan_of(manifest(id="other"), overrides=["mix.factor=5"])
    second = run_toy(other)
    return Store(tmp_path / "home"), first, second


def test_the_inventory_knows_who_used_what(two_runs: tuple[Store, Path, Path]) -> None:
    store, first, second = two_runs
    held = inventory(store, first.parent)
    assert {one.kind for one in held} == {"toy/make", "toy/mix", "toy/table"}
    shared = [one for one in held if one.kind == "toy/make"]
    assert all(one.experiments == ["other", "toy"] and len(one.runs) == 2 for one in shared)
    alone = chosen(held, experiment="other")
    assert {one.kind for one in alone} == {"toy/mix", "toy/table"}
    assert {one.key for one in chosen(held, run=second.name)} == {one.key for one in alone}
    assert chosen(held, older_than=1) == []
    old = time.time() - 3 * 86400
    os.utime(store.path(shared[0].key) / "step.json", (old, old))
    assert [one.key for one in chosen(inventory(store, first.parent), older_than=1)] == [
        shared[0].key
    ]


def test_the_command_lists_and_removes(
    two_runs: tuple[Store, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first, second = two_runs
    monkeypatch.setenv("KIT_HOME", str(store.home))
    where = ["--runs-dir", str(first.parent)]

    def kit(*arguments: str) -> str:
        done = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert len(json.loads(kit("--json", *where))) == len(list(store.finished())) == 11
    assert "3 x toy/make" in kit(*where)
    assert "would remove 4 steps" in kit("remove", "--run", second.name, "--dry-run", *where)
    assert "removed 4 of 4 steps" in kit("remove", "--run", second.name, *where)
    assert len(list(store.finished())) == 7
    key = next(store.finished())
    with store.reading([key]):
        assert "1 are in use" in kit("remove", "--older-than", "0", *where)
    assert list(store.finished()) == [key]
