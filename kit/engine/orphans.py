"""No process of a run outlives it, not even when the run is killed with SIGKILL.

A worker's standard input is a pipe from the run. When the run dies the pipe ends, and the worker
kills its whole process group (its own children, such as data loaders, included). Ranks started by
torchrun are in sessions of their own; they ask the kernel to be killed with their parent.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when its parent dies."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet waited for does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except ProcessLookupError:
        return False
    except OSError:
        return not sys.platform.startswith("linux")
    return state.rpartition(") ")[2][:1] not in ("Z", "X")


def lines_or_death(source: BinaryIO) -> queue.Queue[bytes]:
    """Lines of a pipe from the parent; when it ends, this process group is killed.

    The group must be this process's own (the parent starts it with ``process_group=0``).
    """
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in source:
            lines.put(line)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=read, name="parent-watch", daemon=True).start()
    return lines


if __name__ == "__main__":
    # ``python -m kit.engine.orphans ARGS``: python ARGS, killed with its parent. The wish
    # survives exec, and unlike a hook between fork and exec this is safe beside threads.
    die_with_parent()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
