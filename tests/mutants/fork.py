"""Pytest in a forked process, where the large libraries are imported already.

What each test did is written as it ends, so that a run that is killed has told what it knew.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
WALL_SECONDS = 300
HERE_ONLY = ("kit", "tests")


class TimeOver(Exception):
    """The time given to the whole was over."""


@dataclass(frozen=True)
class Ran:
    """How pytest ended over some tests.

    Attributes:
        ended: Within its time.
        failed: Ids of the tests, or names of the files that could not be read, that failed.
        seconds: Of processor time, by test.
        cpu: Seconds of processor time of the whole, collection included.
    """

    ended: bool
    failed: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0


class Asked:
    """A plugin: only the tests asked for, in their order; what became of them, in a file."""

    def __init__(self, said: Path, only: Sequence[str] | None, leave_out: Sequence[str]) -> None:
        self.said = said.open("w", encoding="utf-8")
        self.order = None if only is None else {name: at for at, name in enumerate(only)}
        self.leave_out = set(leave_out)
        self.spent: dict[str, float] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the others; files stay together, for what their tests share."""
        items[:] = [one for one in items if one.nodeid not in self.leave_out]
        if (order := self.order) is None:
            return
        kept = [one for one in items if one.nodeid in order]
        files: dict[str, int] = {}
        for one in sorted(kept, key=lambda one: order[one.nodeid]):
            files.setdefault(one.nodeid.partition("::")[0], len(files))
        kept.sort(key=lambda one: (files[one.nodeid.partition("::")[0]], order[one.nodeid]))
        items[:] = kept

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read."""
        if report.failed:
            self._say(report.nodeid, 0.0, failed=True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test."""
        self.spent[report.nodeid] = self.spent.get(report.nodeid, 0.0) + report.duration
        if report.failed or report.when == "teardown":
            self._say(report.nodeid, self.spent[report.nodeid], failed=report.failed)

    def _say(self, name: str, seconds: float, *, failed: bool) -> None:
        self.said.write(json.dumps([name, round(seconds, 3), failed]) + "\n")
        self.said.flush()


def forked(
    tree: Path,
    files: Sequence[str],
    *,
    until: float,
    first: bool = True,
    only: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    cpu_seconds: float = 60,
    plugins: Sequence[Any] = (),
) -> Ran:
    """Run tests of a copy of the repository.

    Args:
        tree: The copy.
        files: Files of tests, or ids of tests.
        until: ``time.monotonic()`` at which everything stops.
        first: Stop at the first failure.
        only: Ids of the tests to run, in this order; all that the files hold if None.
        leave_out: Ids of tests not to run.
        cpu_seconds: Processor time after which the process is ended.
        plugins: More plugins of pytest.

    Raises:
        TimeOver: Everything has to stop.
    """
    said, printed = (tree.parent / f"{tree.name}-{name}" for name in ("said.jsonl", "printed.txt"))
    said.write_text("")
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        limit = int(cpu_seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        with printed.open("w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        _in_child(tree, [*(["-x"] if first else []), *files], said, only, leave_out, plugins)
    status, cpu = _waited(pid, min(time.monotonic() + WALL_SECONDS, until))
    if status is None and time.monotonic() >= until:
        raise TimeOver
    told = [json.loads(line) for line in said.read_text("utf-8").splitlines() if line[-1:] == "]"]
    failed = list(dict.fromkeys(name for name, _, bad in told if bad))
    ended = status is not None and os.WIFEXITED(status)
    if ended and os.WEXITSTATUS(status or 0) not in (0, 1, 2) and not failed:
        failed = [files[0].partition("::")[0]]  # it broke before the first test
    return Ran(ended, tuple(failed), {name: seconds for name, seconds, _ in told}, cpu)


def _waited(pid: int, deadline: float) -> tuple[int | None, float]:
    """Status of a process, None where it had to be killed, and its processor time."""
    done = status = 0
    usage = None
    try:
        while not done and time.monotonic() < deadline:
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if not done:
                time.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, 9)  # and what its tests have started
        if not done:
            _, _, usage = os.wait4(pid, 0)
    cpu = usage.ru_utime + usage.ru_stime if usage else 0.0
    return (status if done else None), cpu


def _in_child(
    tree: Path,
    arguments: list[str],
    said: Path,
    only: Sequence[str] | None,
    leave_out: Sequence[str],
    plugins: Sequence[Any],
) -> NoReturn:
    """Run the tests of the copy, whose packages are not the ones that this module came from."""
    code = 3
    try:
        os.chdir(tree)
        sys.stdout, sys.stderr = (os.fdopen(of, "w", closefd=False) for of in (1, 2))
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
        others = [
            p for p in os.environ.get("PYTHONPATH", "").split(":") if p not in ("", str(ROOT))
        ]
        os.environ["PYTHONPATH"] = ":".join([str(tree), *others])
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # two bugs within a second look the same
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        sys.dont_write_bytecode = True
        for name in [name for name in sys.modules if name.partition(".")[0] in HERE_ONLY]:
            del sys.modules[name]
        for plugin in plugins:
            if begin := getattr(plugin, "begin", None):
                begin(tree)
        options = ["-q", "-p", "no:cacheprovider", "--no-header"]
        options += ["-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin"]
        options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
        options += [f"--basetemp={tree / 'tmp'}", *arguments]
        code = int(pytest.main(options, plugins=[Asked(said, only, leave_out), *plugins]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if code == 5 else code)
