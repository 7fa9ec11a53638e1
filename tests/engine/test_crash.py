"""Killed anywhere, full disk, read-only store, two at once: the next run ends the same."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit import durable
from kit.engine.store import Store
from kit.errors import EXIT_INTERRUPTED, Preflight, StepFailed
from tests.engine.conftest import plan_of
from tests.engine.test_session import Run, failing, record, states

TIMEOUT = 120


def command(folder: Path, *options: str) -> list[str]:
    """The driver's command line for a folder."""
    return [
        sys.executable,
        "-m",
        "tests.engine.driver",
        str(folder / "home"),
        str(folder / "runs"),
        *options,
    ]


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start the driver."""
    return subprocess.Popen(
        command(folder, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(folder: Path, *options: str) -> Path:
    """Run the driver to its end; returns the run directory."""
    done = subprocess.run(
        command(folder, *options), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def tables(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "results.json").read_bytes(), (folder / "labels.jsonl").read_bytes()


def workers_of(folder: Path) -> list[psutil.Process]:
    """Worker processes whose log stands under the folder, wherever their parent is."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        with contextlib.suppress(psutil.Error, OSError):
            log = str(Path(f"/proc/{process.pid}/fd/2").readlink())
            if any("kit.engine.worker" in word for word in line) and log.startswith(str(folder)):
                found.append(process)
    return found


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


def event_count(folder: Path, name: str) -> int:
    logs = folder.glob("runs/*/events.jsonl")
    return sum(path.read_text().count(f'"event":"{name}"') for path in logs)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The tables of an undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIT_STEPS_MODULES", "tests.engine.toy")
        return tables(finish(tmp_path_factory.mktemp("reference"), "--seconds", "0"))


def lines_of_newest(folder: Path) -> int:
    """Length of the newest event log."""
    logs = sorted(folder.glob("runs/*/events.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return logs[-1].read_bytes().count(b"\n") if logs else 0


def reached(child: subprocess.Popen[str], folder: Path, lines: int) -> bool:
    """Whether the run has logged so much, or has ended."""
    return child.poll() is not None or lines_of_newest(folder) >= lines


def all_gone(folder: Path) -> bool:
    """Whether no worker is left."""
    return not workers_of(folder)


def test_killed_at_random_points(tmp_path: Path, reference: tuple[bytes, bytes]) -> None:
    """Twelve stores, each killed once or twice after a random event, the run or one worker."""
    chance, workers_seen = random.Random(20), 0
    for number in range(12):
        folder = tmp_path / str(number)
        for _ in range(chance.choice([1, 2])):
            last = chance.randrange(30)
            child = start(folder, "--seconds", "0.1")
            wait_until(partial(reached, child, folder, last))
            time.sleep(chance.uniform(0.0, 0.05))
            workers = workers_of(folder)
            workers_seen += len(workers)
            if workers and chance.random() < 0.4:
                with contextlib.suppress(psutil.NoSuchProcess):
                    chance.choice(workers).kill()
                time.sleep(chance.uniform(0.0, 0.1))
            child.kill()
            child.communicate(timeout=TIMEOUT)
            assert wait_until(partial(all_gone, folder)), "a worker outlived its run"
        assert tables(finish(folder, "--seconds", "0.1")) == reference
        assert not list((folder / "home" / "tmp").iterdir())
    assert workers_seen > 5


@pytest.mark.parametrize("event", ["step-started", "progress", "step-done", "step-cached"])
def test_killed_at_an_event(tmp_path: Path, reference: tuple[bytes, bytes], event: str) -> None:
    if event == "step-cached":
        finish(tmp_path, "--seconds", "0.3")
    child = start(tmp_path, "--seconds", "0.3")
    before = event_count(tmp_path, event)
    assert wait_until(lambda: event_count(tmp_path, event) > before or child.poll() is not None)
    child.kill()
    child.communicate(timeout=TIMEOUT)
    assert tables(finish(tmp_path, "--seconds", "0.3")) == reference


def test_a_long_step_goes_on_from_its_scratch(tmp_path: Path) -> None:
    """The second try of a step of eight parts does not redo the parts that the first one left."""
    options = ("--seconds", "4", "--parts", "8", "--jobs", "1")
    child = start(tmp_path, *options)
    parts = lambda: len(list((tmp_path / "home" / "scratch").glob("*/part-[0-9]")))  # noqa: E731
    assert wait_until(lambda: parts() >= 3)
    child.kill()
    child.communicate(timeout=TIMEOUT)
    done = parts()
    again = start(tmp_path, *options)
    assert wait_until(lambda: event_count(tmp_path, "step-done") >= 1)
    again.kill()
    again.communicate(timeout=TIMEOUT)
    (log,) = [
        path
        for path in (tmp_path / "runs").glob("*/events.jsonl")
        if '"step-done"' in path.read_text()
    ]
    items = [json.loads(line) for line in log.read_text().splitlines()]
    seconds = next(item["seconds"] for item in items if item["event"] == "step-done")
    assert seconds < 4 * (8 - done + 1) / 8 + 0.5


def test_two_runs_on_one_store_share_the_work(
    tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    both = [start(tmp_path, "--seconds", "1") for _ in range(2)]
    folders = []
    for child in both:
        out, err = child.communicate(timeout=TIMEOUT)
        assert child.returncode == 0, err
        folders.append(Path(out.splitlines()[-1]))
    assert folders[0] != folders[1]
    assert [tables(folder) for folder in folders] == [reference, reference]
    assert event_count(tmp_path, "step-done") == 7  # between them, every step was done once
    assert event_count(tmp_path, "step-waiting") >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(
    tmp_path: Path, reference: tuple[bytes, bytes], number: signal.Signals
) -> None:
    child = start(tmp_path, "--seconds", "2")
    assert wait_until(lambda: event_count(tmp_path, "progress") >= 1)
    child.send_signal(number)
    _, err = child.communicate(timeout=TIMEOUT)
    assert child.returncode == EXIT_INTERRUPTED
    assert "run the same command again" in err
    assert not workers_of(tmp_path)
    assert not list((tmp_path / "home" / "tmp").iterdir())
    (folder,) = (tmp_path / "runs").iterdir()
    assert record(folder)["status"] == "interrupted"
    assert "stopped" in states(folder).values()
    assert tables(finish(tmp_path, "--seconds", "2")) == reference


def test_ctrl_c_reaches_only_the_run(tmp_path: Path) -> None:
    """A terminal signals its whole foreground group; workers must not die of it by themselves."""
    child = subprocess.Popen(
        command(tmp_path, "--seconds", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wait_until(lambda: event_count(tmp_path, "progress") >= 1)
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=TIMEOUT)
    assert child.returncode == EXIT_INTERRUPTED
    assert "step-failed" not in err
    assert event_count(tmp_path, "step-stopped") == 2


def scratch_file(folder: Path, name: str) -> Path | None:
    return next(iter((folder / "home" / "scratch").glob(f"*/{name}")), None)


def test_a_second_ctrl_c_kills(tmp_path: Path) -> None:
    """A step that does not listen is killed when the user insists."""
    child = start(tmp_path, "--how", "stubborn")
    assert wait_until(lambda: scratch_file(tmp_path, "here") is not None)
    child.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)
    assert child.returncode == EXIT_INTERRUPTED
    assert not workers_of(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_step_started_dies_with_the_run(tmp_path: Path, number: signal.Signals) -> None:
    child = start(tmp_path, "--how", "parent")
    assert wait_until(lambda: scratch_file(tmp_path, "child") is not None)
    path = scratch_file(tmp_path, "child")
    assert path is not None
    assert wait_until(lambda: path.read_text() != "")
    grandchild = int(path.read_text())
    assert psutil.pid_exists(grandchild)
    child.send_signal(number)
    child.communicate(timeout=TIMEOUT)
    assert wait_until(lambda: not psutil.pid_exists(grandchild))


# Disks.


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files above this size cannot be written, as on a full disk (also by child processes)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_output_that_does_not_fit(run_toy: Run, tmp_path: Path) -> None:
    plan = failing("fill")
    with file_size_limit(1_000_000), pytest.raises(StepFailed, match="disk is full") as caught:
        run_toy(plan)
    assert caught.value.where == "f"
    assert "KIT_HOME" in caught.value.next_step
    assert not list((tmp_path / "home" / "tmp").iterdir())
    assert not list((tmp_path / "home" / "store").glob("*/*"))
    assert states(run_toy(plan))["f"] == "run"


def mounted(folder: Path, options: str) -> bool:
    """Mount a tmpfs; only root may."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_store_on_a_full_disk(tmp_path: Path, reference: tuple[bytes, bytes]) -> None:
    """On a real small disk where the system lets us mount one, else with a file size limit."""
    disk = tmp_path / "disk"
    real = mounted(disk, "size=1m")
    options = ("--seconds", "0", "--size", "600000" if real else "1000")
    try:
        if not real:
            disk.mkdir(exist_ok=True)
        limit = [] if real else ["prlimit", "--fsize=300"]
        child = subprocess.run(
            [*limit, *command(disk, *options), "--parts", "1"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert child.returncode == 5, child.stderr
        assert "disk is full" in child.stderr
        assert "Traceback" not in child.stderr
        if real:
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        folder = finish(disk, *options, "--parts", "1")
        assert set(states(folder).values()) <= {"run", "cached"}
    finally:
        if real:
            unmount(disk)


def test_a_read_only_store(run_toy: Run, tmp_path: Path) -> None:
    """Finished steps can still be used; unfinished ones say what to do."""
    home = tmp_path / "home"
    if not mounted(home, "size=16m"):
        home.mkdir(exist_ok=True)
    real = os.path.ismount(home)
    try:
        run_toy()
        if real:
            subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        else:
            for path in [home, *home.rglob("*")]:
                path.chmod(0o555 if path.is_dir() else 0o444)
        assert set(states(run_toy()).values()) == {"cached"}
        with pytest.raises(Preflight, match="cannot write") as caught:
            run_toy(plan_of(overrides=["make.seed=9"]))
        assert "KIT_HOME" in caught.value.next_step
    finally:
        if real:
            unmount(home)
        else:
            for path in [home, *home.rglob("*")]:
                path.chmod(0o755)


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOSPC, StepFailed, "disk is full"),
        (errno.EDQUOT, StepFailed, "disk is full"),
        (errno.EROFS, Preflight, "cannot write"),
        (errno.EIO, StepFailed, "input/output error"),
    ],
)
def test_messages_of_the_system(
    tmp_path: Path, number: int, error: type[Exception], words: str
) -> None:
    told = durable.explain(OSError(number, os.strerror(number)), where="x", path=tmp_path)
    assert isinstance(told, error)
    assert words in told.what
    assert os.strerror(number) in told.what


def test_write_atomic_keeps_the_old_content_on_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    durable.write_atomic(path, b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        durable.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["record.json"]


def test_truncated_at_every_length(run_toy: Run, tmp_path: Path) -> None:
    """However much of step.json is left, the step counts as damaged and is never believed."""
    run_toy()
    store = Store(tmp_path / "home")
    key = plan_of().by_id["mix[seed=0]"].key
    path = store.path(key) / "step.json"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        look: Any = store.look(key)
        assert look.entry is None
        assert look.problem
