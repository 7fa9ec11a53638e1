"""One step of a plan, whose inputs are finished: what ``kit step`` does."""

from __future__ import annotations

from pathlib import Path

from kit.engine.drive import Options, complain, drive
from kit.engine.plan import Plan
from kit.engine.session import Pins
from kit.engine.store import Store
from kit.errors import InvalidInput


def run_one(
    plan: Plan, step: str, *, home: Path, pins: Pins, options: Options, events: Path | None = None
) -> None:
    """Run an instance; nothing happens if it is finished already.

    Args:
        plan: The plan.
        step: Instance id.
        home: The kit home.
        pins: The pin store.
        options: How to run it.
        events: File to append events to; many steps may share it.

    Raises:
        InvalidInput: A step that it reads is not finished.
        StepFailed: It failed.
        Interrupted: A signal came.
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
    if not plan.rehearsal:
        for use in instance.pins.values():
            pins.require(use.pin)
    logs = (events.parent if events is not None else home) / "logs"
    outcome = drive(
        plan,
        store=store,
        pins=pins,
        options=options,
        logs=logs,
        events=events,
        only={step},
        digests=digests,
    )
    complain(plan, outcome, step)
