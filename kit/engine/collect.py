"""The run directory of a plan whose steps somebody else has run: what ``kit collect`` does."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from kit.engine.drive import Options
from kit.engine.events import Event, encode, read_events
from kit.engine.session import Pins, Session, finished
from kit.engine.store import Store
from kit.errors import StepFailed
from kit.results.files import EVENTS, LOGS
from kit.results.plan import Plan

_SHOWN = 3


def collect(
    plan: Plan,
    *,
    home: Path,
    pins: Pins,
    options: Options,
    argv: Sequence[str],
    events: Path | None = None,
) -> Path:
    """Write the run directory of a plan that is finished in the store. No step is run.

    Args:
        plan: The plan that ``kit step`` was called with.
        home: The kit home with the store.
        pins: The pin store.
        options: How finished steps are checked, and where run directories are made.
        argv: The command line, for the record.
        events: Folder below which ``kit step --events`` left ``*.jsonl`` and logs; they are
            brought into the run directory.

    Raises:
        StepFailed: A step is not finished, or its outputs are damaged or outdated.
    """
    have = finished(plan, Store(home), options.check)
    missing = [one.id for one in plan.instances if one.id not in have]
    if missing:
        raise StepFailed(
            f"{len(missing)} of {len(plan.instances)} steps are not finished: "
            + ", ".join(missing[:_SHOWN])
            + ", ..." * (len(missing) > _SHOWN),
            where=plan.experiment,
            why=f"the store {home} has no whole record of them",
            next_step=f"kit step PLAN {missing[0]!r}, or start the other engine again",
        )

    def begin_in(folder: Path) -> None:
        if events is not None:
            _bring(events, folder)

    session = Session(plan, home=home, pins=pins, options=options, argv=argv, begin_in=begin_in)
    return session.run()


def _bring(source: Path, folder: Path) -> None:
    """Events and logs of the single steps, before what collecting itself will say."""
    said = sorted(_step_events(source), key=lambda item: str(item.get("time", "")))
    (folder / EVENTS).write_bytes(b"".join(encode(item) for item in said))
    for log in sorted(source.rglob(f"{LOGS}/*.log")):
        (folder / LOGS).mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # an empty log is removed when a worker ends
            if not log.name.startswith("worker-"):
                shutil.copyfile(log, folder / LOGS / log.name)


def _step_events(source: Path) -> Iterator[Event]:
    """What was said about steps; that one ``kit step`` began and ended says nothing of the run."""
    for file in sorted(source.rglob("*.jsonl")):
        yield from (item for item in read_events(file) if "step" in item)
