"""A phase that is ended takes all of its processes with it, those in sessions of their own too."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.sharded_on_a_host import descendants, end

STARTS_A_SESSION = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
rank = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(rank.pid))
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_an_ended_phase_leaves_no_process_of_another_session(tmp_path: Path) -> None:
    note = tmp_path / "rank"
    child = subprocess.Popen([sys.executable, "-c", STARTS_A_SESSION, str(note)])
    for _ in range(200):
        if note.exists() and note.read_text():
            break
        time.sleep(0.05)
    rank = int(note.read_text())
    assert rank in descendants(child.pid)
    end(child, patience=0.3)
    time.sleep(0.1)
    assert child.returncode
    assert not alive(rank)
