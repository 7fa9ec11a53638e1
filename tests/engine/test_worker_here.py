"""What a worker does, in the process of the test: no pipe between."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kit.engine import context as context_module
from kit.engine import process, worker
from kit.engine.context import Stop, Stopped
from kit.engine.failures import Carried, Failure
from kit.engine.job import Job, PinFolder, Upstream
from kit.engine.registry import REGISTRY
from kit.engine.store import Store
from kit.errors import Preflight, StepFailed
from tests.engine.test_worker import job_of


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stop]:
    """Handlers of signals as they were, and a Stop of the test's own."""
    stop = Stop()
    for module in (worker, context_module):
        monkeypatch.setattr(module, "STOP", stop)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


class Over(Exception):
    """No further job."""


class Jobs:
    """A worker's standard input with these jobs, and :class:`Over` behind them."""

    def __init__(self, *jobs: Job) -> None:
        self._lines: queue.Queue[bytes] = queue.Queue()
        for job in jobs:
            self._lines.put(msgspec.json.encode(job))

    def get(self) -> bytes:
        if self._lines.empty():
            raise Over
        return self._lines.get()

    def empty(self) -> bool:
        return self._lines.empty()


def served(folder: Path, monkeypatch: pytest.MonkeyPatch, *jobs: Job) -> list[dict[str, Any]]:
    """The events of a worker that gets these jobs."""
    monkeypatch.setattr(worker, "lines_or_death", lambda source: Jobs(*jobs))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=None))
    told = folder / "told"
    with told.open("wb") as file:
        try:
            worker.serve(file.fileno(), None)
        except Over:
            file.write(b'{"event": "over"}\n')
    return [json.loads(line) for line in told.read_bytes().splitlines()]


def test_a_worker_does_one_job_after_another_whatever_becomes_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job_of(tmp_path), job_of(tmp_path, "value"), job_of(tmp_path)]
    events = served(tmp_path, monkeypatch, *jobs)
    names = [item["event"] for item in events]
    assert names == [
        "worker-ready", "step-started", "step-done", "step-started", "step-failed", "step-cached",
        "over",
    ]  # fmt: skip
    assert events[0]["pid"] == os.getpid()
    assert events[4]["step"] == "f"
    assert events[4]["failure"]["type"] == "ValueError"
    assert "ValueError: the rank must be positive" in capsys.readouterr().err


def test_a_worker_whose_step_is_stopped_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def perform(*_: Any, **__: Any) -> None:
        raise Stopped

    monkeypatch.setattr(worker, "perform", perform)
    events = served(tmp_path, monkeypatch, job_of(tmp_path), job_of(tmp_path))
    assert [item["event"] for item in events] == ["worker-ready", "step-stopped"]
    assert events[1]["step"] == "f"


@pytest.mark.parametrize("stopped", [False, True])
def test_standard_output_of_a_worker_is_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """Its first descriptor speaks to the run; what a step prints must not go there."""
    called: list[Any] = []

    def serve(events: int, early: Any) -> None:
        os.write(1, b"printed\n")
        os.write(events, b"told\n")
        called.append(early)
        if stopped:
            raise Stopped

    for name in ("heed_signals", "close_if_blind"):
        monkeypatch.setattr(worker, name, lambda name=name: called.append(name))
    monkeypatch.setattr(worker, "serve", serve)
    monkeypatch.setattr(os, "_exit", called.append)
    monkeypatch.setattr(sys, "argv", ["worker"])
    said, saved = tmp_path / "said", os.dup(1)
    try:
        with said.open("wb") as file:
            os.dup2(file.fileno(), 1)
            worker.main()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert said.read_bytes() == b"told\n"
    assert called == ["heed_signals", "close_if_blind", None, 0]


def test_sigterm_ends_a_step_that_does_not_save(handlers: Stop) -> None:
    worker.heed_signals()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    handlers.begin()
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # it is ending


def test_sigterm_lets_a_step_save_and_the_second_does_not(handlers: Stop) -> None:
    worker.heed_signals()
    handlers.begin()
    handlers.waits = True
    os.kill(os.getpid(), signal.SIGTERM)
    assert handlers.asked
    assert callable(signal.getsignal(signal.SIGTERM))
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def failure(traceback: str) -> Failure:
    return Failure(type="ValueError", message="m", traceback=traceback)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("with hf_" + "aB3" * 10), "ValueError: with [redacted]"),
        (Carried(failure("as the rank saw it\n")), "as the rank saw it"),
    ],
)
def test_the_traceback_is_in_the_log_and_the_error_goes_on(
    capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    with pytest.raises(type(error)), worker.traceback_kept():
        raise error
    assert words in capsys.readouterr().err


def test_an_empty_log_is_removed_and_another_is_added_to(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "log"
    with worker.output_to(log):
        pass
    assert not log.exists()
    for text in (b"a", b"b"):
        with worker.output_to(log):
            os.write(1, text)
            os.write(2, text.upper())
    assert log.read_text() == "aAbB"


# What a step needs before and leaves behind.


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        (["config.json", "model.safetensors"], True),
        (["config.json"], False),
        (["model.safetensors"], False),
        ([], False),
    ],
)
def test_a_promised_model_is_a_model(tmp_path: Path, files: list[str], whole: bool) -> None:
    kind: Any = SimpleNamespace(name="k", outputs=("m",), model=SimpleNamespace(folder="m"))
    (tmp_path / "m").mkdir()
    for name in files:
        (tmp_path / "m" / name).touch()
    if whole:
        worker._check_promises(kind, tmp_path, "s")
    else:
        with pytest.raises(StepFailed, match="the output 'm' is no model"):
            worker._check_promises(kind, tmp_path, "s")


def test_what_a_step_reads_is_still_there(tmp_path: Path) -> None:
    store, job = Store(tmp_path / "home"), job_of(tmp_path)
    pin = {"p": PinFolder(id="pin-1", path=str(tmp_path / "gone"), attributes={})}
    with pytest.raises(Preflight, match="pin 'pin-1' is gone"):
        worker._check_inputs(msgspec.structs.replace(job, pins=pin), store)
    worker._check_inputs(msgspec.structs.replace(job, pins=pin, rehearsal=True), store)
    (tmp_path / "gone").mkdir()
    worker._check_inputs(msgspec.structs.replace(job, pins=pin), store)
    up = {"u": [Upstream(instance="up", key="1" * 64, axes={}, params={})]}
    with pytest.raises(StepFailed, match="what up made is not in the store any more"):
        worker._check_inputs(msgspec.structs.replace(job, steps=up), store)


def test_a_step_that_waits_says_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def lock(self: Store, key: str, waiting: Callable[[str], None]) -> Iterator[None]:
        waiting("process 7")
        yield

    monkeypatch.setattr(Store, "lock", lock)
    events: list[Any] = []
    worker.perform(job_of(tmp_path), REGISTRY, events.append)
    assert [item["event"] for item in events] == ["step-waiting", "step-started", "step-done"]
    assert events[0]["holder"] == "process 7"


def test_a_job_of_another_version_is_refused(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    older = msgspec.structs.replace(job, instance=msgspec.structs.replace(job.instance, version=0))
    with pytest.raises(StepFailed, match="toy/fail version 0, this is version 1"):
        worker.perform(older, REGISTRY, lambda item: None)


@pytest.mark.parametrize(
    ("platform", "unit", "status", "gib"),
    [
        ("linux", 2**20, "", 1.0),
        ("darwin", 2**30, "", 1.0),
        ("linux", 1, "VmHWM:\t 2097152 kB\n", 2.0),
        ("linux", 2**20, "VmHWM:\t much kB\n", 1.0),
    ],
)
def test_peak_memory_as_the_kernel_tells_it(
    monkeypatch: pytest.MonkeyPatch, platform: str, unit: int, status: str, gib: float
) -> None:
    used = SimpleNamespace(ru_maxrss=unit)
    known = SimpleNamespace(getrusage=lambda who: used, RUSAGE_SELF=0)
    monkeypatch.setattr(worker, "resource", known)
    monkeypatch.setattr(worker, "Path", lambda path: SimpleNamespace(read_text=lambda **_: status))
    monkeypatch.setattr(worker, "sys", SimpleNamespace(platform=platform))
    assert worker.peak_memory_gb() == gib


def test_peak_memory_of_gpus_is_the_fullest_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, device_count=lambda: 3,
        max_memory_reserved=lambda index: [2**30, 3 * 2**30, 2**29][index],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert worker._peak_gpu_memory_gb() == 3.0
    cuda.is_initialized = lambda: False
    assert worker._peak_gpu_memory_gb() == 0.0


# A process that is not to outlive another.


@pytest.mark.parametrize(
    ("platform", "parents", "asked", "killed"),
    [
        ("linux", (7, 7), True, False),
        ("linux", (7, 1), True, True),  # it died before the kernel was asked
        ("darwin", (7, 1), False, False),
    ],
)
def test_a_process_dies_with_its_parent(
    monkeypatch: pytest.MonkeyPatch, platform: str, parents: tuple[int, int], asked: bool,
    killed: bool,
) -> None:  # fmt: skip
    wishes: list[tuple[int, ...]] = []
    kills: list[tuple[int, int]] = []
    seen = iter(parents)
    library = SimpleNamespace(prctl=lambda *wish: wishes.append(wish))
    monkeypatch.setattr(process, "ctypes", SimpleNamespace(CDLL=lambda name: library))
    monkeypatch.setattr(process, "sys", SimpleNamespace(platform=platform))
    monkeypatch.setattr(process.os, "getppid", lambda: next(seen))
    monkeypatch.setattr(process.os, "kill", lambda *kill: kills.append(kill))
    process.die_with_parent()
    assert [wish[:2] for wish in wishes] == [(process.PR_SET_PDEATHSIG, signal.SIGKILL)] * asked
    assert kills == [(os.getpid(), signal.SIGKILL)] * killed


def test_the_end_of_a_pipe_is_this_groups_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: queue.Queue[tuple[int, int]] = queue.Queue()
    monkeypatch.setattr(process.os, "killpg", lambda *group: ended.put(group))
    lines = process.lines_or_death([b"a\n", b"b\n"])  # type: ignore[arg-type]
    assert [lines.get(timeout=10), lines.get(timeout=10)] == [b"a\n", b"b\n"]
    assert ended.get(timeout=10) == (0, signal.SIGKILL)
