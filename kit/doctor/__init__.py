"""Can this machine run it? Every finding is OK, WARN or FAIL, with the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kit.doctor import containers, gpus, inputs, machine, software
from kit.doctor.core import Check, Needs
from kit.pins.store import PinStore

__all__ = ["Check", "Needs", "examine", "unfit"]


def examine(
    *,
    root: Path,
    store: PinStore,
    needs: Needs,
    experiment: str | None = None,
    profile: str = "mini",
    ids: list[str] | None = None,
    runs: Path = Path("runs"),
) -> Iterator[Check]:
    """All checks, quick ones first.

    Args:
        root: Repository root.
        store: Pins of the experiment.
        needs: What the run asks for.
        experiment: As typed, for the commands in remedies; ``None`` looks at the machine only.
        profile: Profile name, for the same.
        ids: Pins the experiment uses.
        runs: Where runs are written.
    """
    from kit.pins import hub

    used = ids or []
    yield software.python_version()
    yield from fitness(root, store, needs, used, runs)
    yield from containers.check_engines(needs)
    yield from machine.abandoned(store.home)
    if experiment is not None:
        yield from inputs.inputs(store, used, experiment, profile)
        pins = inputs.gated_missing(store, used)
        yield from inputs.access(pins, hub.has_token, hub.check_access)


def fitness(
    root: Path, store: PinStore, needs: Needs, ids: list[str], runs: Path
) -> Iterator[Check]:
    """What the machine itself must have; asks nobody outside of it."""
    from kit.engine import hardware

    # First what no command can mend.
    yield from gpus.check_gpus(hardware.gpus(), needs)
    yield machine.memory(hardware.memory_gb(), needs)
    yield from machine.disk(store.home, runs, needs, inputs.download(store, ids))
    yield machine.shared_memory(needs)
    yield from software.packages(root, needs)


def unfit(root: Path, store: PinStore, needs: Needs, ids: list[str], runs: Path) -> list[Check]:
    """What on this machine stands in the way of a profile."""
    return [check for check in fitness(root, store, needs, ids, runs) if check.level == "FAIL"]
