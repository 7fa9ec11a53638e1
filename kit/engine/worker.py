"""The process in which steps run: ``python -m kit.engine.worker``.

It reads one job a line from its standard input and answers with events, one a line, on what was
its standard output. The two descriptors 1 and 2 are then pointed at the step's log file, so that
nothing a library prints can mix with the events. ``--one FILE`` is a rank under torchrun.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import msgspec

from kit.engine.context import STOP, Stopped
from kit.engine.events import STEP_ENDS, Event, encode, event
from kit.engine.execute import perform
from kit.engine.failures import failure_of
from kit.engine.job import Job
from kit.engine.load import load_registry
from kit.engine.orphans import lines_or_death


def stop_on_sigterm() -> None:
    """Let SIGTERM unwind the running step, so that its workspace is removed.

    A step that asks when to save goes on until it has; a second signal does not wait for that.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if STOP.asked or not STOP.waits:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        STOP.ask()

    signal.signal(signal.SIGTERM, stop)


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Send descriptors 1 and 2 to a file; an empty file is removed afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    saved = [(number, os.dup(number)) for number in (1, 2)]
    for number, _ in saved:
        os.dup2(handle, number)
    os.close(handle)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()


def serve(events: int) -> None:
    """Do jobs until the parent closes the pipe.

    Args:
        events: Descriptor to write events to.
    """

    def emit(item: Event) -> None:
        line = encode(item)
        while line:
            line = line[os.write(events, line) :]

    jobs = lines_or_death(sys.stdin.buffer)
    decoder = msgspec.json.Decoder(Job)
    registry = load_registry()
    emit(event("worker-ready", pid=os.getpid()))
    while True:
        job = decoder.decode(jobs.get())
        step, ends = job.instance.id, list[Event]()

        def tell(item: Event, ends: list[Event] = ends) -> None:
            (ends.append if item["event"] in STEP_ENDS else emit)(item)

        try:
            with output_to(Path(job.log)):
                perform(job, registry, tell)
            for (
                item
            ) in ends:  # now that lock and log are closed: who hears it may kill this process
                emit(item)
        except Stopped:
            emit(event("step-stopped", step))
            return
        except Exception as error:
            told = failure_of(error, home=Path(job.home), step=step)
            emit(event("step-failed", step, failure=msgspec.to_builtins(told)))


def main(arguments: list[str]) -> None:
    """Entry point of the module."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run decides, also for a Ctrl-C
    stop_on_sigterm()
    if arguments[:1] == ["--one"]:
        from kit.engine.torchrun import rank_main

        rank_main(arguments[1])
        return
    events = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    with contextlib.suppress(Stopped):
        serve(events)
    os._exit(0)  # not through interpreter shutdown, which the watching thread could block


if __name__ == "__main__":
    main(sys.argv[1:])
