"""Steps on several GPUs: one process a GPU, started by torchrun.

The process that holds the step's lock starts torchrun, listens to the ranks on a named pipe and
commits what they wrote. Ranks call the step function with the same folders; rank 0 reports.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from kit.engine import oom_kills
from kit.engine.events import Emit, Event, encode, event
from kit.engine.execute import Measured, call
from kit.engine.failures import Carried, Failure, died, failure_of
from kit.engine.job import Job
from kit.engine.load import load_registry
from kit.engine.orphans import die_with_parent
from kit.engine.registry import StepKind
from kit.errors import StepFailed


class RankJob(Struct, frozen=True, kw_only=True):
    """What a rank reads."""

    job: Job
    out: str
    scratch: str
    events: str
    """The named pipe."""


def free_port() -> int:
    """A port nobody listens on now, so that two steps on one host do not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(job_file: Path, processes: int, port: int) -> list[str]:
    """The command line of torchrun for a job file."""
    return [
        sys.executable,
        "-m",
        "kit.engine.orphans",
        "-m",
        "torch.distributed.run",
        "--nnodes=1",
        f"--nproc-per-node={processes}",
        "--master-addr=127.0.0.1",
        f"--master-port={port}",
        "-m",
        "kit.engine.worker",
        "--one",
        str(job_file),
    ]


def launch(job: Job, kind: StepKind, out: Path, scratch: Path, emit: Emit) -> Measured:
    """Run the step function on as many processes as the step has GPUs."""
    pipe, job_file = out.parent / "events", out.parent / "job.json"
    os.mkfifo(pipe)
    job_file.write_bytes(
        msgspec.json.encode(RankJob(job=job, out=str(out), scratch=str(scratch), events=str(pipe)))
    )
    # Read and write: without a writer of our own the pipe would end whenever no rank has it open.
    reading = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    kills = oom_kills.count()
    processes = max(1, job.instance.resources.gpus)
    child = subprocess.Popen(command(job_file, processes, free_port()), stdin=subprocess.DEVNULL)
    measured, failures = Measured(), []
    try:
        for item in _events(reading, child):
            if item["event"] == "rank-done":
                told = msgspec.convert(item["measured"], Measured)
                measured.canaries += told.canaries
                measured.peak_memory_gb += told.peak_memory_gb
                measured.peak_gpu_memory_gb = max(
                    measured.peak_gpu_memory_gb, told.peak_gpu_memory_gb
                )
            elif item["event"] == "rank-failed":
                failures.append(msgspec.convert(item["failure"], Failure))
            else:
                emit(item)
    except BaseException:
        _stop(child)
        raise
    finally:
        os.close(reading)
    if failures:
        raise Carried(failures[0])
    if child.returncode and oom_kills.struck(kills):
        raise died(job.instance, -signal.SIGKILL, Path(job.log), "", oom_killed=True)
    if child.returncode:
        raise StepFailed(
            f"torchrun ended with status {child.returncode}", next_step=f"see {job.log}"
        )
    return measured


def _events(reading: int, child: subprocess.Popen[bytes]) -> Any:
    """Events from the pipe until the child has ended and the pipe is empty."""
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            ended = child.poll() is not None
            if not selector.select(0 if ended else 0.2):
                if ended:
                    return
                continue
            with contextlib.suppress(BlockingIOError):
                buffer += os.read(reading, 65536)
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                yield msgspec.json.decode(line)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End torchrun, which ends its ranks; kill it if it takes too long."""
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def rank_main(job_file: Path) -> None:
    """A rank: call the step function and report on the pipe."""
    die_with_parent()
    told = msgspec.json.decode(job_file.read_bytes(), type=RankJob)
    rank = int(os.environ.get("RANK", "0"))
    # Opened for reading too, so that a rank of a killed run does not block here.
    writing = os.open(told.events, os.O_RDWR)
    turn = os.open(job_file, os.O_RDONLY)

    def send(item: Event) -> None:
        fcntl.flock(turn, fcntl.LOCK_EX)  # a pipe keeps only short writes of several ranks apart
        os.write(writing, encode(item))
        fcntl.flock(turn, fcntl.LOCK_UN)

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
