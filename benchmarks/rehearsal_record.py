"""A rehearsal's run folder as a record: what was measured, by which command, where the time went.

    python -m benchmarks.rehearsal_record RUN OUT.json

``rehearsal.json`` where the run got so far; its event log says where the time of every outer step
and attack step went, and when it was done. A run that was cut has a record too, which says so.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "deepspeed")
METRIC = "seconds of "


def rehearsal_record(run: Path) -> dict[str, Any]:
    """What a run folder says.

    Args:
        run: With ``plan.json``, ``record.json`` and ``events.jsonl``.
    """
    plan, record = (json.loads((run / f"{name}.json").read_text()) for name in ("plan", "record"))
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    done = run / "rehearsal.json"
    begun = [event["step"] for event in events if event["event"] == "step-started"]
    shared = {one["id"]: one for one in plan["instances"] if one["launch"] == "torchrun"}
    return {
        **(json.loads(done.read_text()) if done.exists() else _cut(plan, record, events)),
        "command": _command(record["argv"]),
        "script": "benchmarks/rehearse_tar.sh",
        "date": record["started"][:10],
        "python": record["python"],
        "versions": {name: record["versions"][name] for name in LIBRARIES},
        "notes": [note for note in plan["notes"] if "computed for" in note],
        "trainings": {
            id: {
                "params": one["params"],
                "wall": [*_wall(events, id)],
                "seconds": _parts(events, id),
            }
            for id, one in shared.items()
            if id in begun
        },
    }


def _cut(plan: dict[str, Any], record: dict[str, Any], events: list[Any]) -> dict[str, Any]:
    last = max((e for e in events if e["event"] == "progress"), key=lambda e: e["time"])
    argv = record["argv"]
    return {
        "experiment": plan["experiment"],
        "profile": plan["profile"],
        "fraction": float(argv[argv.index("--fraction") + 1]),
        "hardware": record["hardware"],
        "cut": f"by the time limit, after {last['done']} of {last['total']} {last['unit']}",
    }


def _command(argv: list[str]) -> str:
    """The command without the folder of its runs, which is nobody else's."""
    words = argv[argv.index("rehearse") :]
    if "--runs-dir" in words:
        at = words.index("--runs-dir")
        words = words[:at] + words[at + 2 :]
    return shlex.join(["kit", *words])


def _wall(events: list[Any], id: str) -> Iterator[list[float]]:
    """[steps done, seconds since the step began], as the events came."""
    begun = next(e for e in events if e["event"] == "step-started" and e["step"] == id)
    for event in events:
        if event["event"] == "progress" and event["step"] == id:
            yield [event["done"], round(_at(event) - _at(begun), 2)]


def _at(event: Any) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _parts(events: list[Any], id: str) -> dict[str, list[float]]:
    """Part -> its seconds in each step, in the order of the steps."""
    made: dict[str, list[float]] = {}
    for event in events:
        if event["event"] == "metric" and event["step"] == id:
            made.setdefault(event["name"].removeprefix(METRIC), []).append(event["value"])
    return made


def main() -> None:
    """Write the record."""
    run, out = map(Path, sys.argv[1:])
    out.write_text(json.dumps(rehearsal_record(run), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
