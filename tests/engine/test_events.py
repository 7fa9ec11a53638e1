"""The event log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kit.engine.events import EventLog, encode, event, read_events

WRITER = """
import sys
from pathlib import Path
from kit.engine.events import EventLog, event
log = EventLog(Path(sys.argv[1]))
for number in range(200):
    log(event("note", f"step-{sys.argv[2]}", number=number, text=sys.argv[2] * 3000))
log.close()
"""


def test_events_have_a_time_and_a_step() -> None:
    made = event("progress", "train", done=1)
    assert made["time"].endswith("Z")
    assert (made["event"], made["step"], made["done"]) == ("progress", "train", 1)
    assert "step" not in event("run-started")
    assert event("metric", "train", name="loss")["name"] == "loss"


def test_numbers_json_cannot_say() -> None:
    assert b'"value":null' in encode(event("metric", value=float("nan")))


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    line = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*line, str(number)]) for number in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = list(read_events(path))
    assert len(found) == 600
    assert all(set(item["text"]) == {item["step"][-1]} for item in found)


def test_a_line_cut_short_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log(event("note", text="first"))
    log.close()
    with path.open("ab") as handle:
        handle.write(b'{"event":"note","te')
    log = EventLog(path)
    log(event("note", text="second"))
    log.close()
    assert [item["text"] for item in read_events(path)] == ["first", "second"]
