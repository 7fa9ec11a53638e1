"""A job: one step instance with everything its process must know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from kit.engine.registry import StepKind
from kit.engine.store import Level
from kit.errors import KitError
from kit.manifest.pin_types import AttributeValue
from kit.pins.store import PinStore
from kit.results.plan import Plan, StepInstance


class Upstream(Struct, frozen=True, kw_only=True):
    """A finished instance that a job reads."""

    instance: str
    key: str
    axes: dict[str, Any]
    params: dict[str, Any]


class PinFolder(Struct, frozen=True, kw_only=True):
    """A fetched pin that a job reads."""

    id: str
    path: str
    attributes: dict[str, AttributeValue]


class Job(Struct, frozen=True, kw_only=True):
    """What a worker gets on one line."""

    instance: StepInstance
    home: str
    log: str
    """File that takes what the step prints."""
    steps: dict[str, list[Upstream]] = {}
    pins: dict[str, PinFolder] = {}
    input_digests: dict[str, list[str]] = {}
    """Input -> digests of the upstream outputs as they are now, sorted."""
    rehearsal: bool = False
    check: Level = "small"
    """How thoroughly outputs that are already there are checked before they are taken."""
    fresh: bool = False
    """Outputs that other code made are made again."""

    @property
    def sources(self) -> list[Upstream]:
        """Every finished instance that it reads."""
        return [source for several in self.steps.values() for source in several]

    @property
    def input_keys(self) -> dict[str, list[str]]:
        """Input -> upstream keys in plan order, or the pin's digest."""
        keys = {name: [source.key for source in several] for name, several in self.steps.items()}
        return keys | {name: [use.digest] for name, use in self.instance.pins.items()}


def log_path(folder: Path, instance: str) -> Path:
    """The log file of an instance; ids are kept readable, path separators are not kept."""
    return folder / (instance.replace("/", "_").replace("\0", "_")[:200] + ".log")


def _pin_path(pins: PinStore, id: str, home: Path, *, rehearsal: bool) -> Path:
    try:
        return pins.path(id)
    except KitError:
        if rehearsal:
            return home / "pins" / id  # nobody has it; a rehearsal does not look
        raise


def make_job(
    plan: Plan,
    instance: StepInstance,
    *,
    home: Path,
    logs: Path,
    pins: PinStore,
    digests: Mapping[str, str],
    check: Level = "small",
    fresh: bool = False,
) -> Job:
    """Put together what the process of an instance needs.

    Args:
        plan: The plan.
        instance: One of its instances, all of whose upstream steps are finished.
        home: The kit home.
        logs: Folder for the step's printed output.
        pins: Where pins are.
        digests: Upstream instance id -> digest of its outputs.
        check: How thoroughly outputs that are already there are checked.
        fresh: Make again what other code made.
    """
    by_pin = {pin.id: pin for pin in plan.pins}
    return Job(
        instance=instance,
        home=str(home.absolute()),
        log=str(log_path(logs.absolute(), instance.id)),
        steps={
            name: [
                Upstream(instance=source.id, key=source.key, axes=source.axes, params=source.params)
                for source in (plan.by_id[id] for id in use.instances)
            ]
            for name, use in instance.steps.items()
        },
        pins={
            name: PinFolder(
                id=use.pin,
                path=str(_pin_path(pins, use.pin, home, rehearsal=plan.rehearsal)),
                attributes=by_pin[use.pin].attributes,
            )
            for name, use in instance.pins.items()
        },
        input_digests=instance.input_digests(digests),
        rehearsal=plan.rehearsal,
        check=check,
        fresh=fresh,
    )


def stop_seconds(instance: StepInstance) -> float:
    """How long an instance may take to save its state when it is stopped."""
    seconds = instance.resources.stop_seconds
    return StepKind.stop_seconds if seconds is None else seconds
