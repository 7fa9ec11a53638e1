"""What this machine can run at all: every experiment at every profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from kit.doctor import unfit
from kit.doctor.core import Check, estimate, ok, warn
from kit.errors import KitError
from kit.manifest.catalog import Catalog
from kit.pins.store import PinStore


class Runnable(Struct, frozen=True, kw_only=True):
    """Whether an experiment fits this machine at a profile."""

    experiment: str
    profile: str
    runs: bool
    reasons: list[str] = []
    """Findings that stand in the way, with their words."""


def overview(
    catalog: Catalog, home: Path, *, runs: Path = Path("runs"), only: str | None = None
) -> list[Runnable]:
    """Every experiment at every profile, in the catalog's order; nobody outside is asked.

    Args:
        catalog: The experiments.
        home: The kit's home.
        runs: Where runs are written.
        only: Look at this experiment alone, an id or a path.
    """
    runnables: list[Runnable] = []
    for id in [only] if only is not None else catalog.ids():
        try:
            manifest, store = catalog.manifest(id), PinStore(home, catalog.pins(id))
        except KitError:  # kit validate is where that is reported
            continue
        for profile in sorted(manifest.profiles):
            needs, ids = estimate(manifest, profile), catalog.needed_pins(id, profile)
            checks = unfit(catalog.root, store, needs, ids, runs)
            runnables.append(
                Runnable(
                    experiment=id,
                    profile=profile,
                    runs=not checks,
                    reasons=[f"{check.what}: {check.detail}" for check in checks],
                )
            )
    return runnables


def lines(runnables: list[Runnable]) -> Iterator[Check]:
    """One line for the experiments of a profile that run here, one for each set of reasons."""
    for profile in sorted({runnable.profile for runnable in runnables}):
        here = [runnable for runnable in runnables if runnable.profile == profile]
        able = [runnable.experiment for runnable in here if runnable.runs]
        if able:
            yield ok(f"profile {profile}", f"can run here: {', '.join(able)}")
        reasons: dict[str, list[str]] = {}
        for runnable in here:
            if not runnable.runs:
                reasons.setdefault("; ".join(runnable.reasons), []).append(runnable.experiment)
        for why, experiments in reasons.items():
            yield warn(
                f"profile {profile}",
                f"cannot run here: {', '.join(experiments)} ({why})",
                f"kit doctor {experiments[0]} --profile {profile}",
            )
