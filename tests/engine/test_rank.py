"""What torchrun's ranks and further nodes do, in the process of the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kit.engine import torchrun, worker
from kit.engine.context import Stopped
from kit.engine.events import event
from kit.engine.job import Job
from kit.engine.launch import Nodes
from kit.engine.registry import REGISTRY
from kit.errors import StepFailed
from kit.results.types import Canary
from tests.engine.test_worker import job_of


def sleeping(text: str = "pass") -> subprocess.Popen[bytes]:
    """A process of a minute; it has begun when this returns."""
    code = f"import signal, time; {text}; print(1, flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    return child


DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"

# Stopping torchrun.


@pytest.mark.parametrize(
    ("text", "seconds", "status"),
    [("pass", 20.0, -signal.SIGTERM), (DEAF, 0.2, -signal.SIGKILL)],
)
def test_torchrun_is_asked_and_killed_if_it_does_not_end(
    text: str, seconds: float, status: int
) -> None:
    child = sleeping(text)
    torchrun._stop(child, seconds)
    assert child.returncode == status


def test_ranks_are_asked_in_its_stead(tmp_path: Path) -> None:
    child, rank = sleeping(), sleeping()
    with subprocess.Popen(["true"]) as gone:
        pass
    torchrun._stop(child, 0.3, [gone.pid, rank.pid])
    assert rank.wait() == -signal.SIGTERM
    assert child.returncode == -signal.SIGKILL  # it was not asked


def test_what_ends_the_wait_ends_torchrun_and_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, children = sleeping(), list[subprocess.Popen[bytes]]()

    def start(line: list[str], **_: Any) -> subprocess.Popen[bytes]:
        children.append(child)
        return child

    def stop(_seconds: float) -> None:
        raise Stopped

    monkeypatch.setattr(torchrun.subprocess, "Popen", start)
    monkeypatch.setattr(torchrun, "time", SimpleNamespace(monotonic=time.monotonic, sleep=stop))
    with pytest.raises(Stopped):
        torchrun._attempt(job_of(tmp_path), REGISTRY.get("toy/fail"), tmp_path / "out", tmp_path,
                          lambda item: None)  # fmt: skip
    assert children == [child]
    assert child.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("code", "raised", "what"),
    [
        ("import sys; sys.exit(3)", StepFailed, "torchrun ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", torchrun.Killed, "was killed by SIGKILL"),
    ],
)
def test_torchrun_that_ends_before_any_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, raised: type[Exception], what: str
) -> None:
    monkeypatch.setattr(torchrun, "command", lambda *_: [sys.executable, "-c", code])
    with pytest.raises(raised, match=what):
        torchrun._attempt(job_of(tmp_path), REGISTRY.get("toy/fail"), tmp_path / "out", tmp_path,
                          lambda item: None)  # fmt: skip


# A further node.


class Finishing:
    """A store in which the step is finished from the n-th look on."""

    def __init__(self, after: float, digests: dict[str, list[str]]) -> None:
        self.looks, self.after, self.digests = 0, after, digests

    def look(self, key: str, level: str) -> Any:
        self.looks += 1
        entry = SimpleNamespace(input_digests=self.digests) if self.looks > self.after else None
        return SimpleNamespace(entry=entry)


@pytest.mark.parametrize(
    ("code", "after", "digests", "said"),
    [
        ("raise SystemExit(3)", 9999, {"a": ["1"]}, "torchrun on node 1 ended with status 3"),
        ("raise SystemExit(3)", 0, {"a": ["2"]}, "torchrun on node 1 ended with status 3"),
        ("pass", 9999, {"a": ["1"]}, ""),  # node 0 puts it into the store after its ranks ended
        ("import time; time.sleep(60)", 2, {"a": ["1"]}, ""),
        ("not run", 0, {"a": ["1"]}, ""),
    ],
    ids=["failed", "other inputs", "ended", "finished meanwhile", "finished"],
)
def test_a_further_node_runs_its_ranks_until_the_step_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, after: int,
    digests: dict[str, list[str]], said: str,
) -> None:  # fmt: skip
    started: list[tuple[str, int]] = []

    def command(job_file: str, processes: int, nodes: Nodes) -> list[str]:
        started.append((job_file, processes))
        return [sys.executable, "-c", code]

    monkeypatch.setattr(torchrun, "command", command)
    began = time.monotonic()

    def run() -> None:
        torchrun.join(
            job_of(tmp_path).instance, processes=2, nodes=Nodes(count=2, rank=1, host="h", port=1),
            store=Finishing(after, digests), digests={"a": ["1"]}, environ=dict(os.environ),  # type: ignore[arg-type]
        )  # fmt: skip

    if said:
        with pytest.raises(StepFailed, match=said):
            run()
    else:
        run()
    assert started == ([] if code == "not run" else [(torchrun.ASK_RANK_ZERO, 2)])
    assert time.monotonic() - began < 20


def test_rank_zero_tells_the_others_where_the_job_is(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("torch").distributed
    port = torchrun.free_port()
    kept = distributed.TCPStore("127.0.0.1", port, is_master=True)
    monkeypatch.setattr(torchrun, "_RENDEZVOUS_SECONDS", 3)
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(port))):
        monkeypatch.setenv(name, value)
    for rank, text in (("0", "/job.json"), ("1", torchrun.ASK_RANK_ZERO)):
        monkeypatch.setenv("RANK", rank)
        assert torchrun._job_file(text, Nodes(count=2, host="h", port=port)) == Path("/job.json")
    assert torchrun._job_file("alone", Nodes(count=1, host="h", port=port)) == Path("alone")
    del kept


# A rank.


def ranked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rank: int, how: str = "ok"
) -> list[dict[str, Any]]:
    """What a rank of a job writes."""
    called: list[str] = []
    for name in ("heed_signals", "close_if_blind", "die_with_parent"):
        monkeypatch.setattr(torchrun, name, lambda name=name: called.append(name))
    monkeypatch.setenv("RANK", str(rank))
    job, events = job_of(folder, how), folder / f"events-{rank}"
    for made in ("out", "scratch", f"events-{rank}"):
        (folder / made).mkdir(exist_ok=True)
    work = torchrun.RankJob(
        job=job, out=str(folder / "out"), scratch=str(folder / "scratch"), events=str(events)
    )
    (folder / "job.json").write_bytes(msgspec.json.encode(work))
    try:
        torchrun.rank_main(str(folder / "job.json"))
    finally:
        assert called == ["heed_signals", "close_if_blind", "die_with_parent"]
        (written,) = events.iterdir()
        assert written.name == f"rank-{rank}"
        lines = [json.loads(line) for line in written.read_text().splitlines()]
    return lines


def speaking(canary: bool = True) -> Callable[..., Any]:
    """In place of the step function."""

    def call(job: Job, kind: Any, out: Path, scratch: Path, emit: Any, **_: Any) -> worker.Measured:
        emit(event("progress", job.instance.id, done=1, total=1, unit="x"))
        left = [Canary(id="c", step="f", passed=True, detail="d", cells=[])]
        return worker.Measured(peak_memory_gb=1.5, canaries=left)

    return call


@pytest.mark.parametrize(
    ("rank", "names", "canaries"),
    [
        (0, ["rank-started", "progress", "rank-done"], ["c"]),
        (1, ["rank-started", "rank-done"], []),
    ],
)
def test_a_rank_reports_in_a_file_and_the_first_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, names: list[str],
    canaries: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(torchrun, "call", speaking())
    lines = ranked(tmp_path, monkeypatch, rank)
    assert [line["event"] for line in lines] == names
    assert {line["step"] for line in lines} == {"f"}
    first, last = lines[0], lines[-1]
    assert (first["rank"], first["pid"], first["host"]) == (rank, os.getpid(), socket.gethostname())
    assert last["rank"] == rank
    assert last["measured"]["peak_memory_gb"] == 1.5
    assert [canary["id"] for canary in last["measured"]["canaries"]] == canaries


def test_a_rank_that_fails_says_why_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="the rank must be positive"):
        ranked(tmp_path, monkeypatch, 1, "value")
    text = (tmp_path / "events-1" / "rank-1").read_text()
    (line,) = [json.loads(line) for line in text.splitlines()][1:]
    assert (line["event"], line["rank"]) == ("rank-failed", 1)
    assert abs(line["at"] - time.time()) < 60
    assert line["failure"]["type"] == "ValueError"


def test_a_rank_that_is_stopped_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*_: Any, **__: Any) -> None:
        raise Stopped

    monkeypatch.setattr(torchrun, "call", call)
    names = [line["event"] for line in ranked(tmp_path, monkeypatch, 0)]
    assert names == ["rank-started", "rank-stopped"]
