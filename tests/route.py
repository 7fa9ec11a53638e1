"""Count the files on the way from a command to the science: ``python -m tests.route [EXPERIMENT]``.

Two numbers of the house, measured on a real run:

* run: the kit's files on the call stack when the first line of ``kit/methods`` is executed, the
  stack of ``kit run`` when it started the worker and the worker's own put together;
* plan: the kit's files in which any function runs while a manifest that has been read becomes a
  plan, from the call of ``make_plan`` to its return, and how many functions return on the way.

The tracer is a ``sitecustomize`` module in a folder of its own, so that the kit needs to know
nothing of it; worker processes inherit it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
METHOD, FUNCTIONS = '"method"', '"functions"'
TRACER = """
import json, os, subprocess, sys, threading
LOG, KIT = os.environ["ROUTE_LOG"], os.environ["ROUTE_KIT"]
visited, returns, done = {}, set(), False

def stack(frame):
    files = []
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(KIT) and frame.f_code.co_name != "<module>" and name not in files:
            files.append(name)
        frame = frame.f_back
    return files[::-1]

def write(event, files):
    with open(LOG, "a") as log:
        log.write(json.dumps({"event": event, "pid": os.getpid(), "files": files}) + "\\n")

def profile(frame, event, argument):
    global done
    code = frame.f_code
    if event == "return" and code.co_filename.startswith(KIT):
        returns.add((code.co_filename, code.co_firstlineno))
    if event == "return" and code.co_name == "make_plan" and code.co_filename.startswith(KIT):
        write("planned", list(visited))
        write("functions", [f"{name}:{line}" for name, line in sorted(returns)])
    if event != "call" or not code.co_filename.startswith(KIT) or code.co_name == "<module>":
        return
    if code.co_name == "make_plan":
        visited.clear()
        returns.clear()
    visited.setdefault(code.co_filename, None)
    if not done and code.co_filename.startswith(KIT + "/methods/"):
        done = True
        write("method", stack(frame))
        sys.setprofile(None)

start = subprocess.Popen.__init__
def popen(self, *arguments, **keywords):
    write("spawn", stack(sys._getframe(1)))
    start(self, *arguments, **keywords)
subprocess.Popen.__init__ = popen
threading.setprofile(profile)
sys.setprofile(profile)
"""


def events(command: list[str], wanted: str) -> list[dict[str, object]]:
    """What the tracer wrote while ``kit COMMAND`` ran in an empty home, until the wanted event.

    Raises:
        SystemExit: The command ended before, with what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(TRACER)
        log = Path(folder, "log.jsonl")
        log.touch()
        environment = {
            **os.environ,
            "ROUTE_LOG": str(log),
            "ROUTE_KIT": str(ROOT / "kit"),
            "PYTHONPATH": os.pathsep.join([folder, str(ROOT)]),
            "KIT_HOME": str(Path(folder, "home")),
        }
        said = Path(folder, "said.txt")
        with said.open("wb") as output:
            started = subprocess.Popen(
                [sys.executable, "-m", "kit.cli.main", *command],
                env=environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        while started.poll() is None and wanted not in log.read_text():
            time.sleep(0.1)
        started.terminate()
        started.wait()
        if wanted not in log.read_text():
            ended = f"kit {' '.join(command)} ended with {started.returncode} before {wanted}"
            raise SystemExit(f"{ended}:\n{said.read_text(errors='replace')[-2000:]}")
        return [json.loads(line) for line in log.read_text().splitlines()]


def short(files: object) -> list[str]:
    """Paths below ``kit/``."""
    assert isinstance(files, list)
    return [str(Path(file).relative_to(ROOT)) for file in files]


def run_route(experiment: str) -> list[str]:
    """Files from the command line to the first method, in the order in which they call."""
    with tempfile.TemporaryDirectory() as runs:
        seen = events(["run", experiment, "--runs-dir", runs], METHOD)
    at = next(i for i, event in enumerate(seen) if event["event"] == "method")
    spawned = [event for event in seen[:at] if event["event"] == "spawn" and event["files"]]
    files = [*short(spawned[-1]["files"] if spawned else []), *short(seen[at]["files"])]
    return list(dict.fromkeys(files))


def plan_route(experiment: str) -> tuple[list[str], int]:
    """Files in which something runs until the plan is made, by first visit; functions in them."""
    seen = {event["event"]: event["files"] for event in events(["plan", experiment], FUNCTIONS)}
    functions = seen["functions"]
    assert isinstance(functions, list)
    return short(seen["planned"]), len(functions)


def main() -> None:
    """Print both routes."""
    experiment = sys.argv[1] if len(sys.argv) > 1 else "dt-baselines"
    planned, functions = plan_route(experiment)
    _print("run", run_route(experiment))
    _print(f"plan ({functions} functions)", planned)


def _print(name: str, files: list[str]) -> None:
    print("\n  ".join([f"{name}: {len(files)} files", *files]))


if __name__ == "__main__":
    main()
