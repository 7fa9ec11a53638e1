"""Where a rehearsal of ``tiny-adapt`` at full shape spends its time, and lines of the page on it.

    python -m benchmarks.starts_page RUN SECOND_RUN OUT.json LABEL NOTE

Writes the record of two rehearsals, the second with the first one's kit home and another seed: what
each step took, and the run's time cut at what the GPU waits for. LABEL is what the columns are
called, NOTE what they were measured under.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PARTS = (
    "until the labels' engine may start: imports, alignment beside them",
    "labels: engine start, 3,200 answers",
    "training: until its first step is done",
    "training: the other 199 steps, checks",
    "evaluation: nine token sets",
    "table, end",
)


def time_line(run: Path) -> dict[str, float]:
    """Seconds of each of :data:`PARTS`, from a run folder's events."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]

    def at(event: str, step: str = "", **values: Any) -> datetime:
        for entry in events:
            of_step = entry["event"] == event and str(entry.get("step", "")).startswith(step)
            if of_step and all(entry.get(name) == value for name, value in values.items()):
                return datetime.fromisoformat(entry["time"])
        raise ValueError(f"{run.name} has no {event} of {step or 'the run'}")

    moments = [
        at("run-started"),
        at("step-started", "labels"),
        at("step-done", "labels"),
        at("progress", "adapt", done=1, unit="steps"),
        at("step-done", "adapt"),
        at("step-done", "evaluate"),
        at("run-finished"),
    ]
    seconds = [round((b - a).total_seconds(), 1) for a, b in pairwise(moments)]
    return dict(zip(PARTS, seconds, strict=True))


def rehearsed(run: Path) -> dict[str, Any]:
    """The rehearsal's own record, with the run's seconds and their time line."""
    made: dict[str, Any] = json.loads((run / "rehearsal.json").read_text(encoding="utf-8"))
    line = time_line(run)
    return {"seconds": round(sum(line.values()), 1), "time_line": line} | made


def lines() -> list[str]:
    """A table of all records and their notes."""
    files = sorted(HERE.glob("rehearsal-tiny-adapt-h[12]00-*.json"), reverse=True)
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    runs = [run for record in records for run in (record, record["second_seed"])]
    labels = [record["label"] for record in records]
    names = [f"{label}, {which}" for label in labels for which in ("first", "second seed")]
    return [
        "From an empty kit home, then another seed with the first one's kit home.",
        "",
        f"| seconds | {' | '.join(names)} |",
        f"|---|{'---|' * len(runs)}",
        *(
            f"| {part} | {' | '.join(format(run['time_line'][part], '.1f') for run in runs)} |"
            for part in PARTS
        ),
        f"| in all | {' | '.join(format(run['seconds'], '.0f') for run in runs)} |",
        "",
        *(f"* {record['label']}: {record['note']}." for record in records),
    ]


def main() -> None:
    """Write a record."""
    first, second, out, label, note = sys.argv[1:]
    made = (
        {"label": label, "note": note}
        | rehearsed(Path(first))
        | {"second_seed": rehearsed(Path(second))}
    )
    Path(out).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
