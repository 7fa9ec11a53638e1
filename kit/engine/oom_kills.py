"""Whether the kernel's out-of-memory killer struck.

A process that it ends gets SIGKILL and can say nothing; but the kernel counts: for the machine in
``/proc/vmstat`` and, in a container with a limit of its own, in the cgroup's ``memory.events``.
"""

from __future__ import annotations

from pathlib import Path

COUNTERS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))


def count() -> int | None:
    """Processes killed for want of memory so far; ``None`` where the kernel does not tell.

    Only a difference means something: the two counters overlap.
    """
    found: list[int] = []
    for path in COUNTERS:
        try:
            lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue
        words = (line.split() for line in lines)
        found += [int(word[1]) for word in words if len(word) == 2 and word[0] == "oom_kill"]
    return sum(found) if found else None


def struck(before: int | None) -> bool | None:
    """Whether the count has risen since ``before``; ``None`` when that is not known."""
    now = count()
    return None if before is None or now is None else now > before
