"""What the process of a step does around the function, and what it does before it has a job."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kit.engine import context as context_module
from kit.engine import early as early_module
from kit.engine import process, worker
from kit.engine.context import StepContext, Stop
from kit.engine.early import Ahead, Early, _made_ahead, _read, ahead_folder, early_work, prepare
from kit.engine.events import Event, event
from kit.engine.job import Job, PinFolder, Upstream
from kit.engine.registry import NoParams, Registry, StepKind
from kit.engine.store import Store
from kit.errors import Preflight
from kit.manifest.types import Resources
from kit.results.plan import PinUse
from tests.engine.conftest import plan_of
from tests.engine.test_context import context
from tests.engine.test_worker import job_of
from tests.engine.test_worker_here import Jobs, Over

STEP = plan_of().by_id["make[seed=1]"]


def kind_of(run: Any = lambda c, p: None, **declared: Any) -> StepKind:
    return StepKind("toy/x", 1, NoParams, run, {}, (), **declared)


def job(folder: Path, **changes: Any) -> Job:
    step = msgspec.structs.replace(STEP, kind="toy/x", version=1, params={}, canaries=[])
    return Job(instance=step, home=str(folder), log=str(folder / "log"), **changes)


def called(folder: Path, run: Any, ahead: Ahead | None = None) -> list[Event]:
    events: list[Event] = []
    for name in ("out", "scratch"):
        (folder / name).mkdir(exist_ok=True)
    worker.call(
        job(folder), kind_of(run), folder / "out", folder / "scratch", events.append, ahead=ahead
    )
    return events


# The function and what it is given.


def test_each_step_begins_without_having_asked_when_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    stop.waits = True
    for module in (worker, context_module):
        monkeypatch.setattr(module, "STOP", stop)
    seen: list[bool] = []
    called(tmp_path, lambda c, p: seen.append(stop.waits))
    assert seen == [False]


@pytest.mark.parametrize(
    ("reached", "kept", "words"),
    [
        (False, None, None),
        (True, None, "3 of 9 rows were done"),
        (False, "state", "what it kept is in {scratch}"),
        (False, ".hidden", None),
        (True, "state", "3 of 9 rows were done; what it kept is in {scratch}"),
    ],
)
def test_a_failure_says_how_far_it_came(
    tmp_path: Path, reached: bool, kept: str | None, words: str | None
) -> None:
    def run(c: StepContext, params: NoParams) -> None:
        if reached:
            c.progress(3, 9, "rows")
        if kept:
            (c.scratch / kept).touch()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        called(tmp_path, run)
    notes = getattr(caught.value, "__notes__", [])
    wanted = [] if words is None else [words.format(scratch=tmp_path / "scratch")]
    assert notes == wanted


def test_what_was_made_ahead_is_taken_once_and_said_again(tmp_path: Path) -> None:
    ahead = Ahead("key", {"model": "early"}, [event("note", text="said before")])
    got: list[str] = []

    def run(c: StepContext, params: NoParams) -> None:
        got.extend(c.made(name, lambda: "now") for name in ("model", "model", "other"))

    assert [item["text"] for item in called(tmp_path, run, ahead)] == ["said before"]
    assert got == ["early", "now", "now"]
    got.clear()
    assert called(tmp_path, run) == []
    assert got == ["now", "now", "now"]


def test_a_model_is_asked_for_as_declared(tmp_path: Path) -> None:
    made, _ = context(tmp_path)
    for name in ("model", "data", "nothing"):  # "model" is declared as a pin
        with pytest.raises(ValueError, match="its inputs"):
            made.model(name)


@pytest.mark.parametrize(
    ("pins", "steps", "there"),
    [(["x"], [], True), ([], ["x"], True), (["x"], ["x"], True), (["y"], ["y"], False)],
)
def test_whether_an_optional_input_is_given(
    tmp_path: Path, pins: list[str], steps: list[str], there: bool
) -> None:
    given = job(
        tmp_path,
        pins={name: PinFolder(id="i", path="p", attributes={}) for name in pins},
        steps={name: [Upstream(instance="u", key="k", axes={}, params={})] for name in steps},
    )
    made = StepContext(
        given, kind_of(), store=Store(tmp_path), out=tmp_path, scratch=tmp_path,
        emit=lambda item: None,
    )  # fmt: skip
    assert made.has("x") is there


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda"), (2, "cuda")])
def test_the_device_is_that_of_the_plan(tmp_path: Path, gpus: int, device: str) -> None:
    step = msgspec.structs.replace(STEP, resources=Resources(gpus=gpus))
    given = msgspec.structs.replace(job(tmp_path), instance=step)
    made = StepContext(
        given, kind_of(), store=Store(tmp_path), out=tmp_path, scratch=tmp_path,
        emit=lambda item: None,
    )  # fmt: skip
    assert made.device == device


def test_progress_is_reported_once_an_interval_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(context_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(context_module, "PROGRESS_SECONDS", 0.25)
    made, events = context(tmp_path)
    for done, at in ((1, 0.0), (2, 0.125), (3, 0.25), (4, 0.375), (5, 0.5), (9, 0.5), (9, 0.5)):
        now[0] = 1000.0 + at
        made.progress(done, 9, "rows")
    assert [item["done"] for item in events] == [1, 3, 5, 9, 9]
    assert made.left().startswith("9 of 9 rows")


# Around it.


def test_what_a_step_reads_is_held_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[list[str]] = []
    state = {"now": False}

    @contextmanager
    def reading(self: Store, keys: Any) -> Iterator[None]:
        held.append(list(keys))
        state["now"] = True
        yield
        state["now"] = False

    monkeypatch.setattr(Store, "reading", reading)
    monkeypatch.setattr(worker, "_check_inputs", lambda given, store: None)
    seen: list[bool] = []

    def launch(*given: Any) -> worker.Measured:
        seen.append(state["now"])
        (given[2] / "data.txt").touch()
        return worker.Measured()

    up = {"u": [Upstream(instance="up", key=n * 64, axes={}, params={}) for n in "12"]}
    given = msgspec.structs.replace(job_of(tmp_path), steps=up)
    registry = Registry()
    registry.add(
        StepKind(given.instance.kind, given.instance.version, NoParams, print, {}, ("data.txt",))
    )
    monkeypatch.setattr(worker, "code_digest", lambda kind, params: "c" * 64)
    worker.perform(given, registry, lambda item: None, launch=launch)
    assert held == [["1" * 64, "2" * 64]]
    assert seen == [True]


def test_seconds_of_a_record_are_in_milliseconds(tmp_path: Path) -> None:
    made = worker._record(
        job_of(tmp_path), worker.Measured(peak_memory_gb=1.5), seconds=1.23456, started="s",
        files={}, code="c",
    )  # fmt: skip
    assert (made.seconds, made.peak_memory_gb, made.peak_gpu_memory_gb) == (1.235, 1.5, 0.0)


def test_a_declared_canary_is_left(tmp_path: Path) -> None:
    step = msgspec.structs.replace(STEP, canaries=["a", "b"])
    left: Any = lambda *ids: SimpleNamespace(canaries=[SimpleNamespace(id=id) for id in ids])  # noqa: E731
    worker._check_canaries(kind_of(), left("b", "a", "c"), step)
    with pytest.raises(Exception, match="without its canary 'b'"):
        worker._check_canaries(kind_of(), left("a"), step)


def test_a_log_leaves_no_descriptor_open(tmp_path: Path) -> None:
    def count() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = count()
    for _ in range(3):
        with worker.output_to(tmp_path / "log"):
            os.write(1, b"x")
    assert count() == before
    assert (tmp_path / "log").stat().st_mode & 0o111 == 0


# A process that was started early.


@pytest.mark.parametrize("there", [False, True])
def test_a_job_that_has_come_ends_the_preparation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    told, jobs, got = told_by_serve(tmp_path, monkeypatch, [job_of(tmp_path)] if there else [])
    assert jobs == [there]
    assert (told[0]["event"], told[0]["facts"]) == ("worker-ready", 7)
    assert told[0]["memory_gb"] > 0
    assert len(got) == there


def test_what_was_made_ahead_is_for_its_own_job_and_the_first_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = job_of(tmp_path), job_of(tmp_path, name="g")
    for order, has in (([mine, mine], [True, False]), ([other, mine], [False, False])):
        _, _, got = told_by_serve(tmp_path, monkeypatch, order, Ahead(mine.instance.key))
        assert [launch is not None for launch in got] == has
    _, _, got = told_by_serve(tmp_path, monkeypatch, [mine], None)
    assert got == [None]


def told_by_serve(
    folder: Path, monkeypatch: pytest.MonkeyPatch, jobs: list[Job], ahead: Ahead | None = None
) -> tuple[list[dict[str, Any]], list[bool], list[Any]]:
    """Events, whether a job was there at the preparation, and how each was launched."""
    came: list[bool] = []
    launches: list[Any] = []

    def prepared(work: Early, wanted: Any) -> Any:
        came.append(wanted())
        return {"facts": 7}, ahead

    monkeypatch.setattr(worker, "lines_or_death", lambda source: Jobs(*jobs))
    monkeypatch.setattr(worker, "prepare", prepared)
    monkeypatch.setattr(
        worker, "perform", lambda given, registry, emit, *, launch: launches.append(launch)
    )
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=None))
    said = folder / "said"
    with said.open("wb") as file, pytest.raises(Over):
        worker.serve(file.fileno(), Early(modules=()))
    return [msgspec.json.decode(line) for line in said.read_bytes().splitlines()], came, launches


class Pins:
    """A pin store that has the pins called ``there``."""

    def path(self, id: str) -> Path:
        if id == "gone":
            raise Preflight("gone")
        return Path("/pins") / id


@pytest.mark.parametrize("rehearsal", [False, True])
def test_weights_of_pinned_models_alone_are_read_early(
    monkeypatch: pytest.MonkeyPatch, rehearsal: bool
) -> None:
    kind = StepKind(
        "toy/x", 1, NoParams, print, {"m": "model", "d": "pin", "lost": "model"}, (),
        imports=lambda params: ("json", "csv"),
    )  # fmt: skip
    registry = Registry()
    registry.add(kind)
    monkeypatch.setattr(early_module, "load_registry", lambda: registry)
    uses = {"m": "llama", "d": "words", "lost": "gone"}
    step = msgspec.structs.replace(
        STEP, kind="toy/x", params={},
        pins={name: PinUse(pin=pin, digest="d") for name, pin in uses.items()},
    )  # fmt: skip
    work = early_work(step, Pins(), rehearsal=rehearsal)  # type: ignore[arg-type]
    folders = () if rehearsal else ("/pins/llama",)
    assert work == Early(modules=("json", "csv"), folders=folders)
    other = msgspec.structs.replace(step, kind="toy/unknown")
    assert early_work(other, Pins(), rehearsal=rehearsal) is None  # type: ignore[arg-type]


def test_modules_are_imported_and_weights_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "imported_early_here.py").write_text("X = 1\n")
    (tmp_path / "broken_early_here.py").write_text("raise RuntimeError('broken')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for number, size in enumerate((100, 0, 50)):
        (tmp_path / f"{number}.safetensors").write_bytes(b"x" * size)
    (tmp_path / "other.bin").write_bytes(b"x" * 999)
    names = ("broken_early_here", "imported_early_here")
    facts, ahead = prepare(Early(modules=names, folders=(str(tmp_path),)), lambda: False)
    assert sys.modules.pop("imported_early_here").X == 1
    assert (facts["imported"], facts["bytes_read"], ahead) == (1, 150, None)
    assert "RuntimeError: broken" in capsys.readouterr().err
    assert facts["seconds"] == round(facts["seconds"], 3) >= 0
    assert "ahead_seconds" not in facts
    assert facts["gpu_touched"] is False


@pytest.mark.parametrize("used", [True, False])
def test_whether_a_gpu_was_touched(monkeypatch: pytest.MonkeyPatch, used: bool) -> None:
    cuda = SimpleNamespace(is_initialized=lambda: used)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert prepare(Early(modules=()), lambda: False)[0]["gpu_touched"] is used
    monkeypatch.setitem(sys.modules, "torch", None)
    assert prepare(Early(modules=()), lambda: False)[0]["gpu_touched"] is False


@pytest.mark.parametrize(("wanted", "given", "made"), [(False, True, True), (True, True, False),
                                                       (False, False, False)])  # fmt: skip
def test_ahead_is_made_where_no_job_has_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool, given: bool, made: bool
) -> None:
    monkeypatch.setattr(early_module, "_made_ahead", lambda one: Ahead(one.instance.key))
    work = Early(modules=(), job=job(tmp_path) if given else None)
    facts, ahead = prepare(work, lambda: wanted)
    assert (ahead is not None) is made
    assert ("ahead_seconds" in facts) is made


def test_reading_ends_when_a_job_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_module, "_CHUNK", 10)
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 35)
    assert _read(file, lambda: False) == 35
    answers = iter([False, False, True])
    assert _read(file, lambda: next(answers)) == 20


def test_ahead_has_a_folder_of_its_own_and_its_events_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ahead(c: StepContext, params: NoParams) -> dict[str, Any]:
        c.note("making")
        (c.scratch / "file").touch()
        return {"folder": c.scratch, "out": c.out}

    one = job(tmp_path)
    registry = Registry()
    registry.add(kind_of(ahead=ahead))
    monkeypatch.setattr(early_module, "load_registry", lambda: registry)
    made = _made_ahead(one)
    folder = ahead_folder(one, os.getpid())
    assert made.made == {"folder": folder, "out": folder}
    assert folder.is_dir()
    assert made.key == one.instance.key
    assert [item["text"] for item in made.events] == ["making"]


class Ended(BaseException):
    """The process would have ended."""


def test_a_failure_ahead_ends_the_process_and_is_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ahead(c: StepContext, params: NoParams) -> dict[str, Any]:
        raise RuntimeError("not on this GPU")

    registry = Registry()
    registry.add(kind_of(ahead=ahead))
    monkeypatch.setattr(early_module, "load_registry", lambda: registry)
    written = io.BytesIO()
    log = io.TextIOWrapper(io.BufferedWriter(written))  # type: ignore[arg-type]
    seen: list[tuple[int, bytes]] = []

    def end(status: int) -> None:
        seen.append((status, written.getvalue()))
        raise Ended

    monkeypatch.setattr(early_module.os, "_exit", end)
    monkeypatch.setattr(sys, "stderr", log)
    with pytest.raises(Ended):
        _made_ahead(job(tmp_path))
    ((status, text),) = seen
    assert status == 1
    assert b"RuntimeError: not on this GPU" in text


# Processes.


def test_who_watches_the_parent_keeps_no_process_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(process.os, "killpg", lambda *group: ended.set())
    alive = threading.Event()

    def lines() -> Iterator[bytes]:
        yield b"a\n"
        alive.wait(10)

    heard = process.lines_or_death(lines())  # type: ignore[arg-type]
    assert heard.get(timeout=10) == b"a\n"
    watching = [thread for thread in threading.enumerate() if thread.name == "parent-watch"]
    assert watching
    assert all(thread.daemon for thread in watching)
    alive.set()
    assert ended.wait(10)


@pytest.mark.parametrize("threads", [None, 3])
def test_threads_and_gpus_of_a_process(threads: int | None) -> None:
    given = {"A": "b", "HF_TOKEN": "hf_" + "q" * 30, "OMP_NUM_THREADS": "9"}
    made = process.worker_environment(given, threads=threads, gpus=["1", "0"])
    assert made["CUDA_VISIBLE_DEVICES"] == "1,0"
    assert (made["A"], made["HF_HUB_OFFLINE"], "HF_TOKEN" in made) == ("b", "1", False)
    assert made["OMP_NUM_THREADS"] == ("9" if threads is None else "3")
    assert ("MKL_NUM_THREADS" in made) is (threads is not None)
    assert made["PYTHONSAFEPATH"] == "1"
    assert process.worker_environment({}, threads=None, gpus=[])["CUDA_VISIBLE_DEVICES"] == ""


def test_kills_are_added_up_where_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("nr_free 5\noom_kill 3\n")
    two.write_text("low 0\noom 7\noom_kill 4\noom_group_kill 9\n")
    for paths, count in (([one, two], 7), ([one], 3), ([tmp_path / "none"], None), ([], None)):
        monkeypatch.setattr(process, "OOM_COUNTERS", tuple(paths))
        assert process.oom_kills() == count
