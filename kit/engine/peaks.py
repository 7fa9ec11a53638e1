"""Peak memory of one step inside a process that may run many."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

from kit.engine.hardware import GIB

_STATUS = Path("/proc/self/status")


def reset() -> None:
    """Forget earlier peaks (Linux: writing 5 to ``clear_refs`` resets the high-water mark)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    torch = sys.modules.get("torch")  # never imported for this: a step that used no torch has none
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def memory_gb() -> float:
    """Peak resident memory since :func:`reset`."""
    with contextlib.suppress(OSError, ValueError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / GIB, 4)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / GIB, 4)


def gpu_memory_gb() -> float:
    """Peak memory that torch held on the GPUs of this process, the largest one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0.0
    devices = range(torch.cuda.device_count())
    return round(float(max(torch.cuda.max_memory_reserved(i) for i in devices)) / GIB, 4)
