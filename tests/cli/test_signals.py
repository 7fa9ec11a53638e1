"""Signals outside of a run: what is before the steps and after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from kit.errors import EXIT_INTERRUPTED


def test_a_command_that_is_asked_to_end(tmp_path: Path) -> None:
    """It reads a plan that never comes; opening the pipe's other end tells that it got there."""
    pipe = tmp_path / "plan.json"
    os.mkfifo(pipe)
    child = subprocess.Popen(
        [sys.executable, "-m", "kit.cli.main", "step", str(pipe), "x"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KIT_HOME": str(tmp_path / "home")},
    )
    with pipe.open("w"):
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=60)
    assert child.returncode == EXIT_INTERRUPTED
    assert said.strip() == "interrupted; what is finished is kept"
