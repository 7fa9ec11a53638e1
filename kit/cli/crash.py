"""What a user sees of a programming error: two lines and a file, not a screen of traceback."""

from __future__ import annotations

import os
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from kit.engine.secrets import redact
from kit.manifest.home import kit_home


def report_crash(error: Exception, *, debug: bool) -> str:
    """Write the traceback to a file (or return it, with ``--debug``) and say what to do."""
    trace = redact("".join(traceback.format_exception(error)))
    summary = redact(f"{type(error).__name__}: {error}".splitlines()[0])
    head = f"error: unexpected {summary}\n  why:  this is a fault of the kit, not of your input"
    if debug:
        return f"{trace}{head}"
    path = _write(trace)
    kept = f"the traceback is in {path}" if path else "run it again with --debug"
    return f"{head}\n  next: {kept}; please report it"


def _write(trace: str) -> Path | None:
    name = f"crash-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.txt"
    for folder in (kit_home() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.write_text(trace, encoding="utf-8")
        except OSError:
            continue
        return path
    return None
