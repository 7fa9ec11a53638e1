"""Steps on several GPUs: one process a GPU, started by torchrun on every node.

The process that holds the step's lock, on node 0, starts torchrun, reads what the ranks write into
files beside the outputs, and commits. The other nodes :func:`join`: their ranks ask rank 0, through
torchrun's own store, where the job is. All ranks call the step function with the same folders, on
a file system that the nodes share; rank 0 reports.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from kit.engine.blind import close_if_blind
from kit.engine.context import Stopped
from kit.engine.events import Emit, Event, EventLog, EventTail, event
from kit.engine.failures import Carried, Failure, died, failure_of
from kit.engine.job import Job, stop_seconds
from kit.engine.launch import Nodes, nodes_here
from kit.engine.process import alive, die_with_parent, oom_kills, rose
from kit.engine.registry import StepKind, load_registry
from kit.engine.store import Store
from kit.engine.worker import Measured, call, heed_signals
from kit.errors import StepFailed
from kit.results.plan import StepInstance

ASK_RANK_ZERO = "-"
"""Instead of a job file, on nodes that do not know it."""
_KEY = "kit/job"
_POLL_SECONDS = 0.2
_AFTER_FAILURE_SECONDS = 5.0
"""When a rank has failed, the others have so long to end and say why."""
_RENDEZVOUS_SECONDS = 900
"""Nodes of one SLURM job start seconds apart; ones started by hand, minutes."""


class RankJob(Struct, frozen=True, kw_only=True):
    """What a rank reads."""

    job: Job
    out: str
    scratch: str
    events: str
    """Folder that takes a file of events from each rank."""


def free_port() -> int:
    """A port nobody listens on now, so that two steps on one host do not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(job_file: str, processes: int, nodes: Nodes) -> list[str]:
    """The command line of torchrun for a job file.

    Args:
        job_file: Path of a :class:`RankJob`, or :data:`ASK_RANK_ZERO`.
        processes: Ranks on this node.
        nodes: Which node this is; its port must be set.
    """
    return [
        sys.executable,
        "-m",
        "kit.engine.process",
        "-m",
        "torch.distributed.run",
        f"--nnodes={nodes.count}",
        f"--node-rank={nodes.rank}",
        f"--nproc-per-node={processes}",
        f"--master-addr={nodes.host}",
        f"--master-port={nodes.port}",
        f"--rdzv-conf=timeout={_RENDEZVOUS_SECONDS}",
        "-m",
        "kit.engine.torchrun",
        job_file,
    ]


class Killed(StepFailed):
    """A process of the step was killed from outside: the step itself may be sound."""


def launch(job: Job, kind: StepKind, out: Path, scratch: Path, emit: Emit) -> Measured:
    """Run the step function in as many processes as share the step (on this node).

    Where one of them is killed from outside, a repeatable step is tried once more, and that is
    said. On several nodes it is not: the other nodes' torchrun has ended with the killed rank.
    """
    try:
        return _attempt(job, kind, out, scratch, emit)
    except Killed as error:
        if not kind.repeatable or nodes_here().count > 1:
            raise
        reason = f"{error.what}; it is tried once more"
    emit(event("step-repeated", job.instance.id, reason=reason))
    for made in (out, out.parent / "events"):
        shutil.rmtree(made)
    out.mkdir()
    try:
        return _attempt(job, kind, out, scratch, emit)
    except Killed as error:
        error.why += "; it was tried twice"
        raise


def _attempt(job: Job, kind: StepKind, out: Path, scratch: Path, emit: Emit) -> Measured:
    events, job_file = out.parent / "events", out.parent / "job.json"
    events.mkdir()
    job_file.write_bytes(
        msgspec.json.encode(
            RankJob(job=job, out=str(out), scratch=str(scratch), events=str(events))
        )
    )
    nodes = nodes_here()
    if nodes.count == 1:
        nodes = msgspec.structs.replace(nodes, port=free_port())
    line = command(str(job_file), job.instance.resources.world, nodes)
    kills, ranks = oom_kills(), Ranks(events)
    child = subprocess.Popen(line, stdin=subprocess.DEVNULL, env=_patient(job.instance))
    trouble = math.inf
    try:
        while True:
            ended = child.poll() is not None
            for item in ranks.news():
                emit(item)
            if ended:
                break
            if ranks.trouble:
                # How a rank was lost torchrun alone can say, once it has ended the others.
                patience = stop_seconds(job.instance) if ranks.lost else 0.0
                trouble = min(trouble, time.monotonic() + _AFTER_FAILURE_SECONDS + patience)
            if time.monotonic() > trouble:
                child.kill()  # the others hang where the failed one is awaited; they go with it
            time.sleep(_POLL_SECONDS)
    except BaseException:
        _stop(child, stop_seconds(job.instance), ranks.living())
        raise
    if ranks.lost:
        raise _lost(job, *ranks.lost, oom_killed=rose(kills))
    if ranks.failures:
        raise Carried(min(ranks.failures, key=lambda pair: pair[0])[1])
    if child.returncode and (child.returncode == -signal.SIGKILL or rose(kills)):
        raise _killed(
            died(job.instance, -signal.SIGKILL, Path(job.log), "", oom_killed=rose(kills))
        )
    if child.returncode:
        raise StepFailed(
            f"torchrun ended with status {child.returncode}", next_step=f"see {job.log}"
        )
    return ranks.measured


class Ranks:
    """What the ranks of a step have written so far, and which of them are gone.

    The first cause in time is the one to report: when a rank fails, the others soon complain of a
    lost connection, and which file is read first says nothing.

    Args:
        folder: Where each rank appends events to a file of its own.

    Attributes:
        measured: Of all ranks that are done, added up.
        failures: Time by the rank's own clock, and what it said.
        lost: The first rank of this host that ended without a word before any other failed, as
            (rank, process id).
    """

    def __init__(self, folder: Path) -> None:
        self.measured = Measured()
        self.failures: list[tuple[float, Failure]] = []
        self.lost: tuple[int, int] | None = None
        self._folder = folder
        self._tails: dict[Path, EventTail] = {}
        self._running: dict[int, int] = {}

    @property
    def trouble(self) -> bool:
        """Whether the step has failed, whatever the other ranks do."""
        return bool(self.failures or self.lost)

    def living(self) -> list[int]:
        """Process ids of ranks of this host that have not ended."""
        return [pid for pid in self._running.values() if alive(pid)]

    def news(self) -> Iterator[Event]:
        """Take in what is new; yields the events that are for the run."""
        known = self.trouble
        yield from self._read()
        gone = [(rank, pid) for rank, pid in self._running.items() if not alive(pid)]
        if not gone:
            return
        yield from self._read()  # what they wrote last
        # A rank that fails says so before it ends, and torchrun ends one only after another has
        # failed: whoever is gone without a word was first.
        silent = [gone_rank for gone_rank in gone if gone_rank[0] in self._running]
        if silent and not known:
            self.lost = silent[0]

    def _read(self) -> Iterator[Event]:
        for path in sorted(self._folder.iterdir()):
            self._tails.setdefault(path, EventTail(path))
        for item in (item for tail in self._tails.values() for item in tail.read()):
            if item["event"] == "rank-started":
                if item["host"] == socket.gethostname():
                    self._running[item["rank"]] = item["pid"]
            elif item["event"] in ("rank-done", "rank-failed", "rank-stopped"):
                self._end(item)
            else:
                yield item

    def _end(self, item: Event) -> None:
        self._running.pop(item["rank"], None)
        if item["event"] == "rank-failed":
            self.failures.append((item["at"], msgspec.convert(item["failure"], Failure)))
        elif item["event"] == "rank-done":
            # Memory of processes adds up, memory of GPUs is each GPU's own.
            rank = msgspec.convert(item["measured"], Measured)
            self.measured.canaries += rank.canaries
            self.measured.peak_memory_gb += rank.peak_memory_gb
            most = max(self.measured.peak_gpu_memory_gb, rank.peak_gpu_memory_gb)
            self.measured.peak_gpu_memory_gb = most


def _lost(job: Job, rank: int, pid: int, *, oom_killed: bool | None) -> StepFailed:
    """The failure of a rank that ended without a word; torchrun printed how."""
    text = ""
    with contextlib.suppress(OSError):
        text = Path(job.log).read_text(encoding="utf-8", errors="replace")
    match = re.search(rf"exitcode\s*:\s*(-?\d+)\W+(?:local_rank: \d+ )?\(pid: {pid}\)", text)
    if match is None:
        return StepFailed(
            f"rank {rank} ended without a word", where=job.instance.id, next_step=f"see {job.log}"
        )
    error = died(job.instance, int(match.group(1)), Path(job.log), "", oom_killed=oom_killed)
    error.what = error.what.replace("the step's process", f"rank {rank}", 1)
    return _killed(error) if int(match.group(1)) == -signal.SIGKILL else error


def _killed(error: StepFailed) -> Killed:
    return Killed(error.what, where=error.where, why=error.why, next_step=error.next_step)


def _patient(instance: StepInstance, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of torchrun: it waits as long for its ranks as the step may need.

    Unless somebody chose otherwise, GPU memory is had in segments that grow, as it was when the
    memory of plans was measured.
    """
    named = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    grows = {} if any(name in environ for name in named) else {named[1]: "expandable_segments:True"}
    patience = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(math.ceil(stop_seconds(instance)))}
    return {**environ, **grows, **patience}


def _stop(child: subprocess.Popen[bytes], seconds: float, ranks: Sequence[int] = ()) -> None:
    """End torchrun and its ranks; kill them if that takes too long.

    Args:
        child: torchrun.
        seconds: How long ranks may take to save.
        ranks: Process ids of ranks to ask; torchrun asks its own when there are none.
    """
    for pid in ranks or [child.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()  # the ranks are killed with their parent
        child.wait()


def join(
    instance: StepInstance,
    *,
    processes: int,
    nodes: Nodes,
    store: Store,
    digests: dict[str, list[str]],
    environ: dict[str, str],
) -> None:
    """A further node: run its ranks until the step is in the store.

    Args:
        instance: The step.
        processes: Ranks on this node.
        nodes: Which node this is.
        store: The shared store.
        digests: Digests of the inputs, by which a finished step is recognised.
        environ: Environment of the ranks.

    Raises:
        StepFailed: The ranks of this node ended with an error.
    """

    def finished() -> bool:
        entry = store.look(instance.key, "sizes").entry
        return entry is not None and entry.input_digests == digests

    if finished():
        return
    line = command(ASK_RANK_ZERO, processes, nodes)
    env = _patient(instance, environ)
    child = subprocess.Popen(line, stdin=subprocess.DEVNULL, env=env)
    try:
        while child.poll() is None:
            if finished():  # node 0 took it from the store, or its ranks are just ending
                time.sleep(5 * _POLL_SECONDS)
                break
            time.sleep(_POLL_SECONDS)
    finally:
        if child.poll() is None:
            _stop(child, stop_seconds(instance))
    if child.returncode and not finished():
        raise StepFailed(
            f"torchrun on node {nodes.rank} ended with status {child.returncode}",
            where=instance.id,
            why="usually because a rank failed, on this node or another",
            next_step="node 0 says what failed; then start all nodes again, the step goes on from "
            "its checkpoints",
        )


def _job_file(text: str, nodes: Nodes) -> Path:
    """Where the job is: rank 0 knows and tells the others."""
    if nodes.count == 1:
        return Path(text)
    from torch import distributed

    # The store that torchrun keeps on node 0; its address is in the environment of each rank.
    store = distributed.PrefixStore(  # type: ignore[attr-defined]
        _KEY,
        distributed.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=_RENDEZVOUS_SECONDS),
        ),
    )
    if os.environ["RANK"] == "0":
        store.set("path", text)
    return Path(store.get("path").decode())


def rank_main(text: str) -> None:
    """A rank: call the step function and report in a file.

    Args:
        text: Path of the job file, or :data:`ASK_RANK_ZERO`.
    """
    heed_signals()
    close_if_blind()
    die_with_parent()
    work = msgspec.json.decode(_job_file(text, nodes_here()).read_bytes(), type=RankJob)
    rank = int(os.environ.get("RANK", "0"))
    send = EventLog(Path(work.events) / f"rank-{rank}")

    def emit(item: Event) -> None:
        if rank == 0:
            send(item)

    job, step = work.job, work.job.instance.id
    send(event("rank-started", step, rank=rank, pid=os.getpid(), host=socket.gethostname()))
    try:
        registry = load_registry()
        measured = call(
            job,
            registry.get(job.instance.kind, where=step),
            Path(work.out),
            Path(work.scratch),
            emit,
        )
    except Stopped:
        send(event("rank-stopped", step, rank=rank))
        return
    except Exception as error:
        at = time.time()
        failure = msgspec.to_builtins(failure_of(error, home=Path(job.home), step=step))
        send(event("rank-failed", step, rank=rank, at=at, failure=failure))
        raise
    if rank:
        measured.canaries = []  # every rank runs the same checks; one report is enough
    send(event("rank-done", step, rank=rank, measured=msgspec.to_builtins(measured)))
    send.close()


if __name__ == "__main__":
    rank_main(sys.argv[1])
