"""Plans and records of made-up runs, whole: what a run directory is read as."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from kit.results.files import CLOSED, SUMS
from kit.results.plan import Plan, StepInstance, StepUse
from kit.results.record import Record, StepRecord

STARTED = "2026-11-21T09:00:00.000Z"
HEAD = {"experiment": "made", "version": "1-A", "variant": "as-reported", "profile": "mini"}


def key_of(text: str) -> str:
    """A key as the planner makes them."""
    return sha256(text.encode()).hexdigest()


def instance(
    id: str, *, step: str = "", before: tuple[str, ...] = (), **fields: Any
) -> StepInstance:
    """A step instance; ``before`` are the instances that it reads."""
    steps = {f"input-{i}": StepUse(instances=[one], many=False) for i, one in enumerate(before)}
    defaults: dict[str, Any] = {"kind": "made/step", "version": 1, "params": {}, "key": key_of(id)}
    return StepInstance(id=id, step=step or id.partition("[")[0], steps=steps, **defaults | fields)


def plan(*instances: StepInstance, **fields: Any) -> Plan:
    """A plan whose last instance gives the results."""
    made = list(instances) or [instance("table")]
    defaults: dict[str, Any] = {"family": "made", "results": made[-1].id}
    return Plan(**HEAD | defaults | {"instances": made} | fields)


def ran(id: str, seconds: float = 1.0, **fields: Any) -> StepRecord:
    """What a record says of a step that ran."""
    defaults: dict[str, Any] = {"state": "run", "started": STARTED, "key": key_of(id)}
    return StepRecord(seconds=seconds, **defaults | fields)


def record(**fields: Any) -> Record:
    """The record of a finished run."""
    defaults: dict[str, Any] = {
        "kit_version": "0.1.0",
        "rehearsal": False,
        "modified": False,
        "seed": None,
        "overrides": [],
        "notes": [],
        "status": "finished",
        "argv": ["kit", "run", "made"],
        "commit": None,
        "dirty": None,
        "started": STARTED,
        "python": "3.11.7",
        "platform": "Linux",
        "versions": {},
        "hardware": {},
        "environment": {},
        "variables": {},
    }
    return Record(**HEAD | defaults | fields)


def whole(folder: Path, **fields: Any) -> None:
    """Close a run directory that has a table: plan, record, event and hashes that go with it.

    Args:
        folder: With ``results.json``, and whatever else is to stay as it is.
        **fields: Of plan and record both, as the engine writes them (overrides, notes, seed).
    """
    table = json.loads((folder / "results.json").read_bytes())
    head = {name: table[name] for name in ("experiment", "version", "profile")} | fields
    only_record = {name: head.pop(name) for name in ("steps", "hardware") if name in head}
    only_record.setdefault("steps", {"table": ran("table")})
    write(folder, plan(**head))
    digest = sha256((folder / "results.json").read_bytes()).hexdigest()
    write(folder, record(**head, **only_record, results_sha256=digest))
    event = {"event": "run-started", "time": STARTED} | {k: table[k] for k in HEAD if k in table}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    close(folder)


def close(folder: Path) -> None:
    """Write the hashes of what is in a run directory."""
    here = [name for name in CLOSED if (folder / name).is_file()]
    lines = [f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in here]
    (folder / SUMS).write_text("".join(lines))


def write(folder: Path, *parts: Plan | Record) -> None:
    """Put plan and record into a run directory."""
    for part in parts:
        name = "plan.json" if isinstance(part, Plan) else "record.json"
        (folder / name).write_bytes(msgspec.json.encode(part))
