"""The store: whole or absent, and damage is found."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path

import pytest

from kit.engine import store as store_module
from kit.engine.store import RECORD, Store, StoredStep
from kit.errors import StepFailed

KEY = "ab" * 32


def entry(**fields: object) -> StoredStep:
    return StoredStep(
        kind="toy/make", version=1, instance="make", params={}, started="now", seconds=1.0, **fields
    )  # type: ignore[arg-type]


def put(store: Store, key: str = KEY, content: bytes = b"hello") -> StoredStep:
    """Commit an entry with two files."""
    with store.lock(key), store.workspace(key) as workspace:
        out = workspace / "out"
        (out / "folder").mkdir(parents=True)
        (out / "data.txt").write_bytes(content)
        (out / "folder" / "more.txt").write_bytes(b"more")
        return store.commit(key, out, entry)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def test_absent(store: Store) -> None:
    look = store.look(KEY)
    assert look.entry is None
    assert look.problem == ""


def test_commit_and_look(store: Store) -> None:
    made = put(store)
    look = store.look(KEY, "all")
    assert look.entry == made
    assert set(made.files) == {"data.txt", "folder/more.txt"}
    assert made.files["data.txt"].size == 5
    assert store.path(KEY).parent.name == "ab"
    assert not list((store.home / "tmp").iterdir())
    assert not list((store.home / "locks").iterdir())


def test_outputs_are_read_only(store: Store) -> None:
    put(store)
    assert (store.path(KEY) / "data.txt").stat().st_mode & 0o222 == 0


def test_commit_empties_scratch(store: Store) -> None:
    store.scratch(KEY).mkdir(parents=True)
    put(store)
    assert not store.scratch(KEY).exists()


def test_digest_is_over_content_and_not_over_time(store: Store, tmp_path: Path) -> None:
    first, second = put(store), put(Store(tmp_path / "other"))
    assert first.digest == second.digest
    assert put(Store(tmp_path / "third"), content=b"other").digest != first.digest


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: os.truncate(d / "data.txt", 3), "has 3 bytes"),
        (lambda d: (d / "data.txt").unlink(), "is gone"),
        (lambda d: (d / RECORD).unlink(), "step.json is missing"),
        (lambda d: os.truncate(d / RECORD, 40), "step.json"),
        (lambda d: (d / RECORD).write_text("[]"), "step.json"),
    ],
)
def test_damage_is_found_by_a_glance(store: Store, damage: object, words: str) -> None:
    put(store)
    folder = store.path(KEY)
    for path in folder.iterdir():
        path.chmod(0o755)
    damage(folder)  # type: ignore[operator]
    look = store.look(KEY, "sizes")
    assert look.entry is None
    assert words in look.problem


def flip(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"HELLO")


def test_a_file_that_somebody_adds_to_an_output_folder_is_damage(store: Store) -> None:
    """A model is loaded by its folder: a file beside its own would be loaded too."""
    put(store)
    (store.path(KEY) / "folder" / "deeper").mkdir()
    assert store.look(KEY).entry is not None
    (store.path(KEY) / "folder" / "deeper" / "adapter.json").write_text("{}")
    assert store.look(KEY, "sizes").entry is not None
    assert "folder/deeper/adapter.json: the step did not write it" in store.look(KEY).problem


@pytest.mark.parametrize("level", ["small", "all"])
def test_damage_deep_in_a_folder_is_found(store: Store, level: str) -> None:
    put(store)
    inside = store.path(KEY) / "folder" / "more.txt"
    inside.chmod(0o644)
    inside.write_bytes(b"MORE")
    assert "folder/more.txt: has sha256" in store.look(KEY, level).problem  # type: ignore[arg-type]


def test_changed_content_is_found_by_hash(store: Store) -> None:
    put(store)
    flip(store.path(KEY) / "data.txt")
    assert store.look(KEY, "sizes").entry is not None
    assert "sha256" in store.look(KEY, "small").problem


def test_large_files_are_hashed_only_when_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SMALL", 5)
    put(store)
    flip(store.path(KEY) / "data.txt")
    assert store.look(KEY, "small").entry is not None
    assert "sha256" in store.look(KEY, "all").problem


def test_an_older_format_counts_as_absent(store: Store) -> None:
    put(store)
    path = store.path(KEY) / RECORD
    told = json.loads(path.read_text())
    path.write_text(json.dumps({"schema_version": 0, "something": told["kind"]}))
    look = store.look(KEY)
    assert (look.entry, look.problem) == (None, "")
    assert put(store) == store.look(KEY).entry  # and it can be replaced


def test_a_damaged_entry_is_set_aside_and_kept_for_a_week(store: Store) -> None:
    put(store)
    aside = store.set_aside(KEY)
    assert (aside / "data.txt").read_text() == "hello"
    assert store.look(KEY).problem == ""
    store.clean()
    assert aside.exists()
    old = time.time() - 8 * 86400
    os.utime(aside, (old, old))
    store.clean()
    assert not aside.exists()


def test_a_failing_build_leaves_nothing(store: Store) -> None:
    def build() -> None:
        with store.lock(KEY), store.workspace(KEY) as workspace:
            (workspace / "half").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        build()
    assert store.look(KEY).entry is None
    assert not list((store.home / "tmp").iterdir())


def test_links_are_no_outputs(store: Store) -> None:
    with store.lock(KEY), store.workspace(KEY) as workspace:
        out = workspace / "out"
        out.mkdir()
        (out / "link").symlink_to("/etc/hostname")
        with pytest.raises(StepFailed, match="link or a special file"):
            store.commit(KEY, out, partial(entry))


def test_clean_removes_only_what_nobody_works_on(store: Store) -> None:
    stale, live = "cd" * 32, "ef" * 32
    for key in (stale, live):
        (store.home / "tmp" / f"{key}.1234").mkdir(parents=True)
    with store.lock(live):
        assert store.clean() == 1
    assert [path.name for path in (store.home / "tmp").iterdir()] == [f"{live}.1234"]
    assert store.clean() == 1


def test_cleaning_an_empty_home(store: Store) -> None:
    assert store.clean() == 0


def test_checkpoints_of_other_inputs_are_not_resumed_from(store: Store) -> None:
    """Upstream was redone and came out differently: its key, and ours, are still the same."""
    with store.lock(KEY):
        folder = store.begin_scratch(KEY, {"labels": ["a"], "data": ["b"]})
        (folder / "state-100").touch()
        same = store.begin_scratch(KEY, {"data": ["b"], "labels": ["a"]})
        assert (same / "state-100").exists()
        other = store.begin_scratch(KEY, {"data": ["b"], "labels": ["changed"]})
        assert other == folder
        assert not (other / "state-100").exists()


def test_checkpoints_of_unknown_inputs_are_not_resumed_from(store: Store) -> None:
    folder = store.scratch(KEY)
    folder.mkdir(parents=True)
    (folder / "state-100").touch()
    with store.lock(KEY):
        assert not (store.begin_scratch(KEY, {}) / "state-100").exists()


def test_clean_removes_the_scratch_of_finished_steps_alone(store: Store) -> None:
    """As a kill between the rename of the outputs and the removal of the scratch leaves it."""
    done, unfinished, held = "aa" * 32, "bb" * 32, "cc" * 32
    for key in (done, held):
        put(store, key)
    for key in (done, unfinished, held):
        store.scratch(key).mkdir(parents=True)
    with store.lock(held):
        store.clean()
        assert store.scratch(held).exists()
    assert not store.scratch(done).exists()
    assert store.scratch(unfinished).exists()


def test_dropped_outputs_are_gone_with_their_folders_and_the_record_stays(store: Store) -> None:
    put(store)
    assert store.drop(KEY)
    assert [path.name for path in store.path(KEY).iterdir()] == [RECORD]
    made = store.look(KEY).entry
    assert made is not None
    assert made.dropped
    assert set(made.files) == {"data.txt", "folder/more.txt"}
    assert not store.drop(KEY)  # nothing is left to drop
    assert not store.drop("cd" * 32)
    put(store)  # made again, in its place; nothing is set aside for that
    again = store.look(KEY).entry
    assert again is not None
    assert not again.dropped
    assert not list((store.home / "tmp").iterdir())


def test_what_is_read_or_made_is_neither_dropped_nor_removed(store: Store) -> None:
    put(store)
    for holding in (store.lock(KEY), store.reading([KEY, "cd" * 32, KEY])):
        with holding:
            assert not store.drop(KEY)
            assert not store.remove(KEY)
        assert store.look(KEY, "all").entry is not None
    with store.reading([KEY]), store.reading([KEY]):
        pass
    assert store.remove(KEY)
    assert not store.path(KEY).exists()


def test_what_is_finished_is_named_in_order(store: Store) -> None:
    keys = ["ab" * 32, "cd" * 32, "0f" * 32]
    for key in keys:
        put(store, key)
    assert list(store.finished()) == sorted(keys)
    assert list(Store(store.home / "nowhere").finished()) == []


def test_a_folder_of_somebody_elses_is_left_where_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be locked is not counted as removed."""
    left = store.home / "tmp" / f"{KEY}.1234"
    left.mkdir(parents=True)

    def refuse(path: Path) -> None:
        raise PermissionError(path)

    with monkeypatch.context() as foreign:
        foreign.setattr(store_module, "lock_if_free", refuse)
        assert store.clean() == 0
    assert left.is_dir()
    with store.lock(KEY):
        assert store.clean() == 0
    assert left.is_dir()
    assert store.clean() == 1
    assert not left.exists()
    assert store.clean() == 0


@pytest.mark.parametrize(("age", "left"), [(6.99, True), (7.01, False)])
def test_what_was_set_aside_is_kept_for_a_week(store: Store, age: float, left: bool) -> None:
    put(store)
    aside = store.set_aside(KEY)
    at = time.time() - age * 86400
    os.utime(aside, (at, at))
    store.clean()
    assert aside.exists() is left
