"""Steps on several GPUs: one process a GPU, started by torchrun on every node.

The process that holds the step's lock, on node 0, starts torchrun, reads what the ranks write into
files beside the outputs, and commits. The other nodes :func:`join`: their ranks ask rank 0, through
torchrun's own store, where the job is. All ranks call the step function with the same folders, on
a file system that the nodes share; rank 0 reports.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from kit.engine import oom_kills
from kit.engine.call import Measured, call
from kit.engine.events import Emit, Event, EventLog, event
from kit.engine.failures import Carried, Failure, died, failure_of
from kit.engine.job import Job
from kit.engine.load import load_registry
from kit.engine.nodes import Nodes, nodes_here
from kit.engine.orphans import die_with_parent
from kit.engine.plan import StepInstance
from kit.engine.registry import StepKind
from kit.engine.store import Store
from kit.errors import StepFailed

ASK_RANK_ZERO = "-"
"""Instead of a job file, on nodes that do not know it."""
_KEY = "kit/job"
_POLL_SECONDS = 0.2
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
        "kit.engine.orphans",
        "-m",
        "torch.distributed.run",
        f"--nnodes={nodes.count}",
        f"--node-rank={nodes.rank}",
        f"--nproc-per-node={processes}",
        f"--master-addr={nodes.host}",
        f"--master-port={nodes.port}",
        f"--rdzv-conf=timeout={_RENDEZVOUS_SECONDS}",
        "-m",
        "kit.engine.worker",
        "--one",
        job_file,
    ]


def launch(job: Job, kind: StepKind, out: Path, scratch: Path, emit: Emit) -> Measured:
    """Run the step function on as many processes as the step has GPUs (on this node)."""
    told, job_file = out.parent / "events", out.parent / "job.json"
    told.mkdir()
    job_file.write_bytes(
        msgspec.json.encode(RankJob(job=job, out=str(out), scratch=str(scratch), events=str(told)))
    )
    nodes = nodes_here()
    if nodes.count == 1:
        nodes = msgspec.structs.replace(nodes, port=free_port())
    line = command(str(job_file), max(1, job.instance.resources.gpus), nodes)
    kills = oom_kills.count()
    child = subprocess.Popen(line, stdin=subprocess.DEVNULL)
    measured, failures = Measured(), list[Failure]()
    try:
        for item in _events(told, child):
            if item["event"] == "rank-done":
                _add(measured, msgspec.convert(item["measured"], Measured))
            elif item["event"] == "rank-failed":
                failures.append(msgspec.convert(item["failure"], Failure))
            else:
                emit(item)
    except BaseException:
        _stop(child)
        raise
    if failures:
        raise Carried(failures[0])
    if child.returncode and oom_kills.struck(kills):
        raise died(job.instance, -signal.SIGKILL, Path(job.log), "", oom_killed=True)
    if child.returncode:
        raise StepFailed(
            f"torchrun ended with status {child.returncode}", next_step=f"see {job.log}"
        )
    return measured


def _add(measured: Measured, rank: Measured) -> None:
    """Count a rank in: memory of processes adds up, memory of GPUs is each GPU's own."""
    measured.canaries += rank.canaries
    measured.peak_memory_gb += rank.peak_memory_gb
    measured.peak_gpu_memory_gb = max(measured.peak_gpu_memory_gb, rank.peak_gpu_memory_gb)


def _events(folder: Path, child: subprocess.Popen[bytes]) -> Iterator[Event]:
    """Whole lines of the ranks' files until the child has ended and all is read."""
    offsets: dict[Path, int] = {}
    while True:
        ended = child.poll() is not None
        for path in sorted(folder.iterdir()):
            with path.open("rb") as handle:
                handle.seek(offsets.get(path, 0))
                text = handle.read()
            whole = text[: text.rfind(b"\n") + 1]
            offsets[path] = offsets.get(path, 0) + len(whole)
            for line in whole.splitlines():
                yield msgspec.json.decode(line)
        if ended:
            return
        time.sleep(_POLL_SECONDS)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End torchrun, which ends its ranks; kill it if it takes too long."""
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
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
    child = subprocess.Popen(line, stdin=subprocess.DEVNULL, env=environ)
    try:
        while child.poll() is None:
            if finished():  # node 0 took it from the store, or its ranks are just ending
                time.sleep(5 * _POLL_SECONDS)
                break
            time.sleep(_POLL_SECONDS)
    finally:
        if child.poll() is None:
            _stop(child)
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
    die_with_parent()
    told = msgspec.json.decode(_job_file(text, nodes_here()).read_bytes(), type=RankJob)
    rank = int(os.environ.get("RANK", "0"))
    send = EventLog(Path(told.events) / f"rank-{rank}")

    def emit(item: Event) -> None:
        if rank == 0:
            send(item)

    job, step = told.job, told.job.instance.id
    registry = load_registry()
    try:
        measured = call(
            job,
            registry.get(job.instance.kind, where=step),
            Path(told.out),
            Path(told.scratch),
            emit,
        )
    except Exception as error:
        failure = failure_of(error, home=Path(job.home), step=step)
        send(event("rank-failed", step, rank=rank, failure=msgspec.to_builtins(failure)))
        raise
    if rank:
        measured.canaries = []  # every rank runs the same checks; one report is enough
    send(event("rank-done", step, rank=rank, measured=msgspec.to_builtins(measured)))
    send.close()
