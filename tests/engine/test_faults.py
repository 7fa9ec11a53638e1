"""What a store lives through between steps: clocks set back, other kits' entries, lost inputs,
and the order in which things reach the disk."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kit import durable
from kit.engine import events, session
from kit.engine.events import read_events, utc_after
from kit.engine.job import Job, make_job
from kit.engine.registry import REGISTRY
from kit.engine.store import RECORD, STORE_VERSION, Store
from kit.engine.worker import perform
from kit.errors import EXIT_INVALID, KitError, Preflight, StepFailed
from tests.engine.conftest import ToyPins, plan_of
from tests.engine.fakes import FakeExecutor, Harness, plan_of_graph
from tests.engine.test_session import Run, pinned_plan, record, states
from tests.engine.test_store import KEY, put

# The clock.


@pytest.fixture
def _backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock, in the run and in its workers, sees an earlier time."""
    # Importing it sets the clock: what is there before has to be remembered first.
    monkeypatch.setattr("time.time", time.time)
    monkeypatch.setattr("kit.engine.events.datetime", events.datetime)
    import tests.engine.backwards as clock

    monkeypatch.setattr("time.time", clock.back)
    monkeypatch.setattr("kit.engine.events.datetime", clock.Clock)
    monkeypatch.setattr(session, "datetime", clock.Clock)
    monkeypatch.setenv("KIT_STEPS_MODULES", "tests.engine.toy,tests.engine.backwards")


@pytest.mark.usefixtures("_backwards")
def test_a_clock_set_back_during_a_run(run_toy: Run) -> None:
    folder = run_toy(jobs=1)
    told = record(folder)
    assert told["ended"] >= told["started"]
    assert told["seconds"] >= 0
    assert all(step["seconds"] >= 0 for step in told["steps"].values())
    times: list[str] = []
    order: dict[str, list[str]] = {}
    for item in read_events(folder / "events.jsonl"):
        times.append(item["time"])
        assert item.get("seconds", 0) >= 0
        order.setdefault(item.get("step", ""), []).append(item["event"])
    assert times != sorted(times), "the clock really went back"
    for step, names in order.items():
        if step:
            assert names[0] == "step-started"
            assert names[-1] == "step-done"


@pytest.mark.usefixtures("_backwards")
def test_nothing_is_stale_after_the_clock_was_set_back(run_toy: Run, tmp_path: Path) -> None:
    """What was made 'later' than now is as good as before, also with file times in the future."""
    first = run_toy()
    for path in (tmp_path / "home").rglob("*"):
        os.utime(path, (4e9, 4e9))
    second = run_toy()
    assert set(states(second).values()) == {"cached"}
    assert first != second
    for name in ("results.json", "labels.jsonl"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_end_is_the_start_and_what_passed() -> None:
    assert utc_after("2026-11-21T23:59:59.500Z", 1.25) == "2026-11-22T00:00:00.750Z"
    assert utc_after("2026-11-21T00:00:00.000Z", 0.0) == "2026-11-21T00:00:00.000Z"


def test_run_directories_of_one_second_do_not_collide(tmp_path: Path) -> None:
    """As happens when a clock is set back to a time that has a run already."""
    made = {session.new_run_dir(tmp_path, "toy", "mini") for _ in range(5)}
    assert len(made) == 5


# Another kit's store.


def of_format(path: Path, number: object) -> None:
    """Make an entry look as if a kit of another store format had written it."""
    told = json.loads((path / RECORD).read_text()) | {"schema_version": number}
    (path / RECORD).write_text(json.dumps(told))


def test_an_older_store_is_redone_with_a_word(run_toy: Run, tmp_path: Path) -> None:
    first, store = run_toy(), Store(tmp_path / "home")
    key = plan_of().by_id["mix[seed=1]"].key
    of_format(store.path(key), STORE_VERSION - 1)
    second = run_toy()
    assert states(second)["mix[seed=1]"] == "run"
    told = [i for i in read_events(second / "events.jsonl") if i["event"] == "step-outdated"]
    assert [item["step"] for item in told] == ["mix[seed=1]"]
    assert "an older kit made it (format 0 of 1)" in told[0]["reason"]
    assert (first / "results.json").read_bytes() == (second / "results.json").read_bytes()
    assert store.look(key).entry is not None


def test_a_newer_store_is_left_alone(run_toy: Run, tmp_path: Path) -> None:
    run_toy()
    store = Store(tmp_path / "home")
    place = store.path(plan_of().by_id["mix[seed=1]"].key)
    of_format(place, STORE_VERSION + 1)
    before = (place / RECORD).read_bytes()
    with pytest.raises(Preflight, match="a newer kit: format 2, this one knows 1") as caught:
        run_toy()
    assert caught.value.exit_code == EXIT_INVALID
    assert "update this kit, or set KIT_HOME" in caught.value.next_step
    assert (place / RECORD).read_bytes() == before
    assert len(list((tmp_path / "runs").iterdir())) == 1, "nothing was begun"


@pytest.mark.parametrize("number", ["2", None, -1, 0, 1.5, [], True])
def test_formats_that_are_no_newer_number(run_toy: Run, tmp_path: Path, number: object) -> None:
    run_toy()
    place = Store(tmp_path / "home").path(plan_of().by_id["table"].key)
    of_format(place, number)
    assert states(run_toy())["table"] in ("run", "cached")


# Inputs that vanish between steps.


def test_an_output_deleted_before_its_reader_starts(tmp_path: Path) -> None:
    plan = plan_of_graph({"a": [], "b": ["a"], "c": ["b"]})

    def lose(job: Job) -> None:
        if job.instance.id == "b":
            shutil.rmtree(Store(tmp_path).path(plan.by_id["a"].key))

    done = Harness(plan, tmp_path, FakeExecutor(before=lose))
    (error,) = done.outcome.errors
    assert error.where == "b"
    assert "what a made is not in the store any more" in error.what
    assert "run the same command again" in error.next_step
    assert done.in_state("blocked") == {"c"}
    again = Harness(plan, tmp_path)
    assert again.in_state("run") == {"a", "b", "c"}


@pytest.mark.parametrize("how", ["gone", "truncated"])
def test_a_file_of_an_input_lost_before_its_reader_starts(tmp_path: Path, how: str) -> None:
    plan = plan_of_graph({"a": [], "b": ["a"]})

    def lose(job: Job) -> None:
        if job.instance.id == "b":
            path = Store(tmp_path).path(plan.by_id["a"].key) / "names.json"
            path.chmod(0o644)
            path.unlink() if how == "gone" else path.write_bytes(path.read_bytes()[:1])

    done = Harness(plan, tmp_path, FakeExecutor(before=lose))
    (error,) = done.outcome.errors
    assert "names.json: " + ("is gone" if how == "gone" else "has 1 byte,") in error.what
    assert Harness(plan, tmp_path).in_state("run") >= {"a", "b"}


def test_inputs_deleted_after_the_run_are_made_again(run_toy: Run, tmp_path: Path) -> None:
    """Only what is missing is redone: what was made from it came out the same."""
    first, store, plan = run_toy(), Store(tmp_path / "home"), plan_of()
    shutil.rmtree(store.path(plan.by_id["make[seed=0]"].key))
    second = run_toy()
    assert [id for id, state in states(second).items() if state == "run"] == ["make[seed=0]"]
    assert (first / "results.json").read_bytes() == (second / "results.json").read_bytes()


def test_a_pin_deleted_after_it_was_checked(run_toy: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pins" / "words"
    folder.mkdir(parents=True)

    class Vanishing(ToyPins):
        def require(self, id: str) -> Path:
            found = super().require(id)
            shutil.rmtree(found)
            return found

    from kit.engine.session import Options, Session

    session = Session(
        pinned_plan(),
        home=tmp_path / "home",
        pins=Vanishing(tmp_path / "pins"),
        options=Options(runs_dir=tmp_path / "runs", jobs=1),
        argv=["kit"],
    )
    with pytest.raises(KitError, match="pin 'words' is gone: there is nothing at") as caught:
        session.run()
    assert caught.value.where == "read"
    assert "kit fetch" in caught.value.next_step
    (tmp_path / "pins" / "words").mkdir()
    (tmp_path / "pins" / "words" / "text.txt").write_text("hello")
    assert states(run_toy(pinned_plan()))["read"] == "run"


# A power cut: what is not flushed may be lost, what is renamed must be flushed before.


class Disk:
    """Follows flushes and renames, and holds the one rule: never rename what is not flushed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.order = folder, [""]
        self.flushed: set[int] = set()
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.flush)
        for name in ("rename", "replace"):
            monkeypatch.setattr(Path, name, self.moving(getattr(Path, name)))

    def flush(self, handle: int) -> None:
        status = os.fstat(handle)
        self._fsync(handle)
        self.flushed.add(status.st_ino)
        self.order.append(f"flush {self.name(Path(f'/proc/self/fd/{handle}').readlink())}")

    def moving(self, rename: Any) -> Any:
        def move(path: Path, target: Path) -> Path:
            inside = [path, *path.rglob("*")] if path.is_dir() else [path]
            scratch = path.is_relative_to(self.folder / "scratch")  # the step's own affair
            for one in () if scratch else inside:
                if one != path or one.is_file():
                    assert one.stat().st_ino in self.flushed, f"{one} is renamed but not flushed"
            self.order.append(f"rename {self.name(path)} to {self.name(target)}")
            return rename(path, target)  # type: ignore[no-any-return]

        return move

    def name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix() if path != self.folder else "."


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files come from /proc")
def test_a_file_is_flushed_renamed_and_its_folder_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path, monkeypatch)
    durable.write_atomic(tmp_path / "record.json", b"{}")
    _, flushed, renamed, folder = disk.order
    assert flushed.startswith("flush .record.json.")
    assert renamed == f"rename {flushed.removeprefix('flush ')} to record.json"
    assert folder == "flush ."


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files come from /proc")
def test_a_step_is_flushed_whole_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, then the record, then folders, then the rename, then the folders that name it."""
    store, disk = Store(tmp_path), Disk(tmp_path, monkeypatch)
    put(store)
    order = disk.order[1:]
    (final,) = (i for i, one in enumerate(order) if one.endswith(f"to store/{KEY[:2]}/{KEY}"))
    before = [one.rpartition("/")[2] for one in order[:final]]
    assert before.index("data.txt") < before.index(RECORD), "the record is written last"
    assert order[final + 1 :] == [f"flush store/{KEY[:2]}", "flush store"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files come from /proc")
def test_nothing_of_a_whole_step_is_renamed_unflushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rule over everything that doing a real job renames."""
    plan = plan_of()
    instance = plan.by_id["make[seed=0]"]
    job = make_job(plan, instance, home=tmp_path, logs=tmp_path, pins=ToyPins(tmp_path), digests={})
    disk = Disk(tmp_path, monkeypatch)
    perform(job, REGISTRY, lambda item: None)
    assert disk.order[-1] == "flush store"


def test_a_failed_step_is_no_excuse(tmp_path: Path) -> None:
    """A job whose input is not there raises before anything is built."""
    plan = plan_of_graph({"a": [], "b": ["a"]})
    job = make_job(
        plan,
        plan.by_id["b"],
        home=tmp_path,
        logs=tmp_path,
        pins=ToyPins(tmp_path),
        digests={"a": "0" * 64},
    )
    from tests.engine.fakes import REGISTRY as FAKES

    with pytest.raises(StepFailed, match="not in the store any more"):
        perform(job, FAKES, lambda item: None)
    assert not (tmp_path / "tmp").exists()
