"""Can this machine run it? Every finding is OK, WARN or FAIL, with the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kit.manifest.doctor import gpus, machine, software
from kit.manifest.doctor.core import Check, Needs
from kit.manifest.pins import PinStore

__all__ = ["Check", "Needs", "examine"]


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
    from kit.engine import hardware
    from kit.manifest.fetch import hub

    yield software.python_version()
    yield from software.packages(root, needs)
    yield from gpus.check_gpus(hardware.gpus(), needs)
    yield machine.memory(hardware.memory_gb(), needs)
    used = ids or []
    yield from machine.disk(store.home, runs, needs, machine.download_size(store, used))
    yield machine.shared_memory(needs)
    if experiment is not None:
        yield from machine.inputs(store, used, experiment, profile)
        pins = machine.gated_missing(store, used)
        yield from machine.access(pins, hub.has_token, hub.check_access)
