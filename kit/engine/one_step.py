"""One step of a plan in this process: what ``kit step`` does."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from kit.engine.events import Event, EventLog
from kit.engine.execute import perform
from kit.engine.failures import failure_of, step_failed
from kit.engine.job import make_job
from kit.engine.load import load_registry
from kit.engine.plan import Plan
from kit.engine.process import OFFLINE
from kit.engine.progress import Mode, renderer
from kit.engine.session import Pins
from kit.engine.store import Store, StoredStep
from kit.engine.tally import Tally
from kit.errors import InvalidInput, KitError


def run_one(
    plan: Plan,
    step: str,
    *,
    home: Path,
    pins: Pins,
    events: Path | None = None,
    progress: Mode = "plain",
) -> StoredStep:
    """Run an instance whose inputs are finished; nothing happens if it is finished itself.

    Args:
        plan: The plan.
        step: Instance id.
        home: The kit home.
        pins: The pin store.
        events: File to append events to.
        progress: How they are shown.

    Raises:
        InvalidInput: A step that it reads is not finished.
        StepFailed: It failed.
    """
    instance, store = plan.instance(step), Store(home)
    digests: dict[str, str] = {}
    for id in instance.upstream():
        look = store.look(plan.by_id[id].key)
        if look.entry is None:
            raise InvalidInput(
                f"it reads {id}, which is not finished" + f": {look.problem}" * bool(look.problem),
                where=step,
                next_step=f"run it first: kit step PLAN {id!r}",
            )
        digests[id] = look.entry.digest
    for use in instance.pins.values():
        if not plan.rehearsal:
            pins.check(use.pin)
    os.environ.update(OFFLINE)
    logs = (events.parent if events is not None else home) / "logs"
    job = make_job(plan, instance, home=home, logs=logs, pins=pins, digests=digests)
    tally = Tally(plan)
    screen = renderer(progress, tally)
    with contextlib.ExitStack() as stack:
        stack.callback(screen.close)
        log = EventLog(events) if events is not None else None
        if log is not None:
            stack.callback(log.close)

        def emit(item: Event) -> None:
            if log is not None:
                log(item)
            tally.update(item)
            screen.show(item)
            screen.tick()

        try:
            return perform(job, load_registry(), emit)
        except KitError:
            raise
        except Exception as error:
            failure = failure_of(error, home=home, step=step)
            raise step_failed(failure, instance, None) from error
