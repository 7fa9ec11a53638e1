"""What a user sees of a programming error: two lines and a file, not a screen of traceback."""

from __future__ import annotations

import os
import re
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from kit.manifest.home import kit_home

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|(?<=[Bb]earer )\S+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|API_?KEY", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """The text without tokens, and without the values of variables named like secrets."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, "[redacted]")
    return _TOKEN.sub("[redacted]", text)


def report_crash(error: Exception, *, debug: bool) -> str:
    """Write the traceback to a file (or return it, with ``--debug``) and say what to do."""
    trace = without_secrets("".join(traceback.format_exception(error)))
    summary = without_secrets(f"{type(error).__name__}: {error}".splitlines()[0])
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
