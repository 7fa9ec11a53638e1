"""Pictures of the README: the first screen of a report and the end of a command.

    .venv/bin/python requirements/pictures.py RUN

The report is drawn by Chromium; what the terminal shows is taken from tmux at 80 columns, with its
colours, and drawn by Chromium as well.
"""

from __future__ import annotations

import html
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUT = Path("docs/pictures")
COLOURS = {
    "1": "font-weight:bold",
    "31": "color:#a3231b",
    "32": "color:#17633f",
    "33": "color:#7d5200",
}


def shoot(page: Path, picture: Path, width: int, height: int) -> None:
    """Draw a page in a window of this size."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={width},{height}", f"--screenshot={picture.resolve()}"]
    subprocess.run([*command, page.resolve().as_uri()], check=True, capture_output=True)


def terminal(command: str) -> str:
    """What a terminal of 80 columns shows once the command has ended, with escape sequences."""
    name = f"kit-pictures-{time.monotonic_ns()}"
    shell = f"{command}; tmux wait-for -S {name}; sleep 60"
    start = ["tmux", "-L", name, "new-session", "-d", "-x", "80", "-y", "24", shell]
    shell = shell.replace("tmux wait-for", f"tmux -L {name} wait-for")
    start[-1] = shell
    subprocess.run(start, check=True)
    try:
        subprocess.run(["tmux", "-L", name, "wait-for", name], check=True, timeout=120)
        shown = ["tmux", "-L", name, "capture-pane", "-p", "-e"]
        return subprocess.run(shown, check=True, capture_output=True, text=True).stdout.rstrip()
    finally:
        subprocess.run(["tmux", "-L", name, "kill-server"], check=False)


def as_page(text: str) -> str:
    """The screen as HTML."""
    body = ""
    for part in re.split(r"(\x1b\[[0-9;]*m)", text):
        if not part.startswith("\x1b"):
            body += html.escape(part)
            continue
        codes = [COLOURS[code] for code in part[2:-1].split(";") if code in COLOURS]
        body += f"</span><span style='{';'.join(codes)}'>"
    style = "margin:0;padding:14px;background:#fffefb;color:#1d1b18;font:15px/1.45 monospace"
    return f"<meta charset=utf-8><body style='{style}'><pre style='margin:0'><span>{body}</span>"


def main(run: Path) -> None:
    """Both pictures of one run."""
    OUT.mkdir(parents=True, exist_ok=True)
    shoot(run / "report.html", OUT / "report.png", 1280, 900)
    kit = Path(sys.executable).with_name("kit")
    screen = terminal(f"{shlex.quote(str(kit))} verify {shlex.quote(str(run))}")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "end.html"
        page.write_text(as_page(f"$ kit verify {run}\n{screen}"), encoding="utf-8")
        shoot(page, OUT / "terminal.png", 780, 40 + 22 * (screen.count("\n") + 2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
