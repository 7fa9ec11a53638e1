"""The record of a rehearsal that was cut: what was done until then, and nothing of the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.rehearsal_record import rehearsal_record

ARGV = ["-c", "--progress", "plain", "rehearse", "e", "--fraction", "0.1", "--runs-dir", "/x/runs"]
ARGV += ["--set", "a.b=[1]"]


def event(kind: str, second: int, **fields: Any) -> dict[str, Any]:
    return {"time": f"2026-11-28T15:00:{second:02d}.500Z", "event": kind, **fields}


def run_folder(folder: Path) -> Path:
    instances = [
        {"id": "data", "launch": "worker", "params": {}},
        {"id": "t", "launch": "torchrun", "params": {"rows": 2}},
        {"id": "later", "launch": "torchrun", "params": {}},
    ]
    plan = {"experiment": "e", "profile": "paper", "notes": ["n", "t: 1 s, computed for H100"]}
    events = [event("step-started", 0, step="data"), event("step-started", 1, step="t")]
    for at in (1, 2):
        events.append(event("progress", 10 * at, step="t", done=at, total=3, unit="outer steps"))
        events.append(event("metric", 10 * at, step="t", name="seconds of a", value=at / 2, at=at))
    record = {
        "argv": ARGV,
        "started": "2026-11-28T15:00:00Z",
        "python": "3.12",
        "hardware": {"gpus": []},
        "versions": {"torch": "1", "transformers": "2", "deepspeed": "3", "numpy": "4"},
    }
    (folder / "plan.json").write_text(json.dumps({**plan, "instances": instances}))
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return folder


def test_a_cut_run_says_how_far_it_came_and_where_the_time_went(tmp_path: Path) -> None:
    made = rehearsal_record(run_folder(tmp_path))
    assert made["cut"] == "by the time limit, after 2 of 3 outer steps"
    assert made["fraction"] == 0.1
    assert made["command"] == "kit rehearse e --fraction 0.1 --set 'a.b=[1]'"
    assert made["notes"] == ["t: 1 s, computed for H100"]
    assert made["trainings"] == {
        "t": {
            "params": {"rows": 2},
            "wall": [[1, 9.0], [2, 19.0]],
            "seconds": {"a": [0.5, 1.0]},
        }
    }
    assert "/x/runs" not in json.dumps(made)


def test_a_finished_rehearsal_keeps_its_findings(tmp_path: Path) -> None:
    found = {"experiment": "e", "profile": "paper", "fraction": 0.1, "steps": [1], "hardware": {}}
    (run_folder(tmp_path) / "rehearsal.json").write_text(json.dumps(found))
    made = rehearsal_record(tmp_path)
    assert {name: made[name] for name in found} == found
    assert "cut" not in made
