"""Which finished steps may lend their pieces: everything equal but one upstream parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit.engine.relatives import relatives
from kit.engine.store import Store, StoredStep

ENVIRONMENT = {"torch": "2.13.0"}


def entry(kind: str, inputs: Any, **changes: Any) -> StoredStep:
    fields = {
        "kind": kind,
        "version": 1,
        "instance": kind,
        "params": {},
        "inputs": inputs,
        "environment": ENVIRONMENT,
        "files": {},
        "started": "2026-01-01T00:00:00Z",
        "seconds": 1.0,
        **changes,
    }
    return StoredStep(**fields)


def put(store: Store, key: str, made: StoredStep) -> str:
    """Commit an entry with one output file."""
    with store.lock(key), store.workspace(key) as folder:
        (folder / "out").mkdir()
        (folder / "out" / "labels.jsonl").write_text(key)
        fields = {name: getattr(made, name) for name in made.__struct_fields__ if name != "files"}
        store.commit(key, folder / "out", lambda files: StoredStep(files=files, **fields))
    return key


def data(steps: int, **changes: Any) -> StoredStep:
    return entry("data", {"pool": ["p"]}, params={"steps": steps, "seed": 1}, **changes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Schedules of 100 and 200 steps, and the labels of the shorter one."""
    store = Store(tmp_path)
    put(store, "d100", data(100))
    put(store, "d200", data(200))
    put(store, "l100", labels("d100"))
    return store


def labels(upstream: str, **changes: Any) -> StoredStep:
    return entry("labels", {"model": ["m"], "data": [upstream]}, params={"limit": 6}, **changes)


def test_another_number_of_steps_is_a_relative(store: Store) -> None:
    assert relatives(store, labels("d200"), "data", "steps") == ["l100"]


def test_a_step_is_no_relative_of_itself(store: Store) -> None:
    assert relatives(store, labels("d100"), "data", "steps") == []


def test_the_newest_comes_first(store: Store) -> None:
    put(store, "d300", data(300))
    put(store, "l300", labels("d300", started="2026-02-01T00:00:00Z"))
    assert relatives(store, labels("d200"), "data", "steps") == ["l300", "l100"]


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {"limit": 7}},
        {"environment": {"torch": "2.12.0"}},
        {"version": 2},
        {"kind": "other"},
        {"inputs": {"model": ["another"], "data": ["d200"]}},
    ],
)
def test_any_other_difference_makes_a_stranger(store: Store, changes: dict[str, Any]) -> None:
    fields = {"kind": "labels", "inputs": {"model": ["m"], "data": ["d200"]}, **changes}
    made = entry(**{"params": {"limit": 6}, **fields})
    assert relatives(store, made, "data", "steps") == []


@pytest.mark.parametrize(
    "changes", [{"params": {"steps": 200, "seed": 2}}, {"inputs": {"pool": ["q"]}}, {"version": 2}]
)
def test_an_upstream_that_differs_otherwise_makes_a_stranger(
    store: Store, changes: dict[str, Any]
) -> None:
    fields = {"params": {"steps": 200, "seed": 1}, "inputs": {"pool": ["p"]}, **changes}
    put(store, "dx", entry("data", fields.pop("inputs"), **fields))
    assert relatives(store, labels("dx"), "data", "steps") == []


def test_a_damaged_relative_lends_nothing(store: Store) -> None:
    path = store.path("l100") / "labels.jsonl"
    path.chmod(0o644)
    path.write_text("L100")
    assert relatives(store, labels("d200"), "data", "steps") == []


def test_a_relative_whose_upstream_is_gone_lends_nothing(store: Store) -> None:
    store.set_aside("d100")
    assert relatives(store, labels("d200"), "data", "steps") == []
